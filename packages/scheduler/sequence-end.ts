/**
 * How far a sequence may go, and what its end does to the books. Called by scheduler.ts, settle.ts and leap.ts; who ends and
 * when is theirs to say.
 */
import type { SchedulerState } from './compose.ts';
import { endedSequence, generatedTokenCount, type OpenSequence } from './open-sequence.ts';
import type { EndedSequence, EndReason } from './sequence.ts';

/** The world's: the gateway's permits keep far below it. */
const MAX_OPEN_SEQUENCES = 100_000;

/** Closes it: it is in no queue and holds no block afterwards. */
export function endSequence(
  state: SchedulerState,
  sequence: OpenSequence,
  reason: EndReason,
  message: string,
  now: number,
): EndedSequence {
  state.open.delete(sequence.spec.sequenceId);
  state.tenants.ended(sequence);
  state.tables.releaseAll(sequence);
  const index = state.running.indexOf(sequence);
  if (index >= 0) state.running.splice(index, 1);
  else state.waiting.remove(sequence);
  return endedSequence(sequence, reason, message, now);
}

/** Why a sequence that is not open yet can never be, as a sentence; '' where it can. */
export function submissionFault(state: SchedulerState, sequence: OpenSequence): string {
  const { maxModelLenTokens, open } = state;
  if (sequence.promptTokenCount === 0) return 'The prompt has no tokens.';
  if (sequence.spec.maxTokens < 1) return `maxTokens must be 1 or more, not ${sequence.spec.maxTokens}.`;
  if (sequence.promptTokenCount + 1 > maxModelLenTokens) {
    return `The prompt has ${sequence.promptTokenCount} tokens; with one token to generate at most ${maxModelLenTokens} fit.`;
  }
  if (open.size >= MAX_OPEN_SEQUENCES) return `${MAX_OPEN_SEQUENCES} sequences are open already.`;
  return isBeyondPool(state, sequence) ? poolFault(state, sequence) : '';
}

/** Tokens that it may still generate. */
export function tokensLeft({ maxModelLenTokens }: SchedulerState, sequence: OpenSequence): number {
  return Math.min(
    sequence.spec.maxTokens - generatedTokenCount(sequence),
    maxModelLenTokens - sequence.tokenIds.length,
  );
}

export const isFullLength = (state: SchedulerState, sequence: OpenSequence): boolean =>
  tokensLeft(state, sequence) <= 0;

/** True when the whole pool could not hold the tokens that its next step attends to. */
export function isBeyondPool({ tables }: SchedulerState, sequence: OpenSequence): boolean {
  return tables.blocksFor(sequence.tokenIds.length) > tables.blockCount;
}

export function poolFault({ tables }: SchedulerState, sequence: OpenSequence): string {
  const { blockCount, blockSize } = tables;
  return `The sequence has ${sequence.tokenIds.length} tokens, and the KV cache holds ${blockCount * blockSize} in all.`;
}
