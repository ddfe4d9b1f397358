/**
 * How many prompt tokens of a flex sequence a step may take beside streams that somebody reads: as many as their tightest
 * ITL objective leaves by the fit, and always a few, so that flex gets on. Called by compose.ts. Pure.
 */
import type { BatchEntry } from './batch.ts';
import { type OpenSequence, remainingTokenCount } from './open-sequence.ts';
import { featuresOf, predictMs, type StepTimeFit } from './step-time.ts';

const LEAST_CHUNK_TOKENS = 16;
/** Of the objective: steps vary, and composing takes time as well. */
const USABLE_SHARE = 0.9;

/** `tokenCount` where the sequence is not flex, nobody reads along, or no fit says what a step takes. */
export function flexTokenCount(
  sequence: OpenSequence,
  composed: { readonly entries: readonly BatchEntry[]; readonly sequences: readonly OpenSequence[] },
  fit: StepTimeFit | null,
  tokenCount: number,
): number {
  if (sequence.spec.serviceTier !== 'flex' || fit === null) return tokenCount;
  let tightestMs = Number.POSITIVE_INFINITY;
  for (const [index, { spec }] of composed.sequences.entries()) {
    const isRead = spec.serviceTier !== 'flex' && spec.objectives.itlMs > 0;
    if (isRead && composed.entries[index]?.kind === 'decode') {
      tightestMs = Math.min(tightestMs, spec.objectives.itlMs);
    }
  }
  if (tightestMs === Number.POSITIVE_INFINITY) return tokenCount;
  const start = sequence.computedTokenCount;
  const fits = (count: number): boolean => {
    const tokenIds = sequence.tokenIds.slice(start, start + count);
    const chunk = { kind: 'prefill', contextLength: start, tokenIds } as const;
    return predictMs(fit, featuresOf([...composed.entries, chunk])) <= USABLE_SHARE * tightestMs;
  };
  let count = Math.min(tokenCount, remainingTokenCount(sequence));
  while (count > LEAST_CHUNK_TOKENS && !fits(count)) {
    count = Math.max(LEAST_CHUNK_TOKENS, Math.floor(count * 0.75));
  }
  return count;
}
