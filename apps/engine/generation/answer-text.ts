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
  readonly #minTokens: number;
  #tokenCount = 0;
  #isStopped = false;

  /** @param minTokens stop strings are not looked for in the first so many tokens */
  constructor(
    vocabulary: Vocabulary,
    stop: readonly string[],
    stopTokenIds: readonly number[],
    minTokens = 0,
  ) {
    this.#minTokens = minTokens;
    this.#detokenizer = new Detokenizer(vocabulary);
    this.#stopRules = new StopRules(stop);
    this.#stopTokenIds = stopTokenIds;
  }

  push(tokenId: number): StopStep {
    if (this.#stopTokenIds.includes(tokenId)) return { text: '', isStopped: this.#isStopped };
    this.#tokenCount += 1;
    if (this.#tokenCount <= this.#minTokens) {
      return { text: this.#detokenizer.push(tokenId), isStopped: false };
    }
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
