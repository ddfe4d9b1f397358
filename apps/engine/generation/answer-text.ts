/**
 * The text of one answer as its tokens arrive: detokenizer, then stop rules. Made by generation.ts for each sequence,
 * pushed by http. Tokens that end a sequence are never text.
 */
import { Detokenizer, type Vocabulary } from './detokenizer.ts';
import { StopRules, type StopStep } from './stop-rules.ts';

export class AnswerText {
  readonly #detokenizer: Detokenizer;
  readonly #stopRules: StopRules;
  readonly #stopTokenIds: readonly number[];
  #isStopped = false;

  constructor(vocabulary: Vocabulary, stop: readonly string[], stopTokenIds: readonly number[]) {
    this.#detokenizer = new Detokenizer(vocabulary);
    this.#stopRules = new StopRules(stop);
    this.#stopTokenIds = stopTokenIds;
  }

  push(tokenId: number): StopStep {
    if (this.#stopTokenIds.includes(tokenId)) return { text: '', isStopped: this.#isStopped };
    const step = this.#stopRules.push(this.#detokenizer.push(tokenId));
    this.#isStopped = step.isStopped;
    return step;
  }

  /** The rest, once the sequence has ended; '' after a stop string. */
  end(): string {
    const tail = this.#stopRules.push(this.#detokenizer.end());
    return tail.isStopped ? tail.text : tail.text + this.#stopRules.end();
  }
}
