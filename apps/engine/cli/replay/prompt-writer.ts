/**
 * Turns planned prompts into what is sent: token ids, a text, or messages. A part's words follow from the seed and its key
 * alone, so that equal keys give equal text in every run and in every prompt. Pure.
 */
import { generator } from '../workload.ts';
import type { PlannedPrompt, PromptMessage, PromptPart } from './planned-traffic.ts';
import { textHash } from './random-draws.ts';
import { stepper } from './scale-lengths.ts';

/** Words that are one token each in most vocabularies when a space stands before them. */
export const vocabulary: readonly string[] = (
  'the a little big old red blue warm cold quiet dog cat bird boat hill tree river house garden rain sun moon star ' +
  'girl boy man woman friend saw found took made went came played looked asked told ran walked and then because so but ' +
  'with under over near into after before one two three day night morning story song ball book bread apple'
).split(' ');

/** An answer as it came, to be repeated in later prompts. */
export interface LiveAnswer {
  readonly text: string;
  /** null where the server gives none. */
  readonly tokenIds: readonly number[] | null;
}

/** By turn; empty where recorded lengths are used. */
export type LiveAnswers = ReadonlyMap<number, LiveAnswer>;

export interface ChatMessage {
  readonly role: PromptMessage['role'];
  readonly content: string;
}

/** @param ids the token ids to draw from */
export function promptTokenIds(
  parts: readonly PromptPart[],
  seed: number,
  ids: readonly number[],
  answers: LiveAnswers,
): number[] {
  const written: number[] = [];
  for (const part of parts) {
    const live = part.answerOf === null ? undefined : answers.get(part.answerOf)?.tokenIds;
    if (live) {
      for (const id of live) written.push(id);
      continue;
    }
    const random = randomOf(seed, part);
    for (let count = part.tokenCount; count > 0; count -= 1) {
      written.push(ids[Math.floor(random() * ids.length)] ?? 0);
    }
  }
  return written;
}

/** @param tokensPerWord as measured on the server */
export function promptText(
  parts: readonly PromptPart[],
  seed: number,
  tokensPerWord: number,
  answers: LiveAnswers,
): string {
  const wordsOf = stepper(1 / tokensPerWord);
  const written: string[] = [];
  for (const part of parts) {
    const count = wordsOf(part.tokenCount);
    const live = part.answerOf === null ? undefined : answers.get(part.answerOf);
    if (live) {
      written.push(live.text.trim());
      continue;
    }
    const random = randomOf(seed, part);
    for (let index = 0; index < count; index += 1) {
      written.push(vocabulary[Math.floor(random() * vocabulary.length)] ?? 'the');
    }
  }
  return written.join(' ') || 'the';
}

export function chatMessages(
  prompt: PlannedPrompt,
  seed: number,
  tokensPerWord: number,
  answers: LiveAnswers,
): ChatMessage[] {
  if (prompt.kind === 'parts') {
    return [{ role: 'user', content: promptText(prompt.parts, seed, tokensPerWord, answers) }];
  }
  return prompt.messages.map(({ role, text, answerOf }) => ({
    role,
    content: ((answerOf === null ? undefined : answers.get(answerOf)?.text) ?? text) || ' ',
  }));
}

const randomOf = (seed: number, part: PromptPart) => generator(textHash(`${seed}/${part.key}`));
