/**
 * How many prompt tokens of flex a step may take beside streams that somebody reads: what their tightest ITL objective
 * leaves, by the fit and by what the last such steps took, and always a few, so that flex gets on. Called by compose.ts and
 * at settle. No clock.
 */
import type { BatchEntry } from './batch.ts';
import { type OpenSequence, remainingTokenCount } from './open-sequence.ts';
import { featuresOf, predictMs, type StepTimeFit } from './step-time.ts';

interface Composed {
  readonly entries: readonly BatchEntry[];
  /** The sequence of each entry. */
  readonly sequences: readonly OpenSequence[];
}

/** What was learned from steps: halved after one that was too long, widened after one that was not. */
export interface FlexPace {
  chunkTokens: number;
}

export const startingPace = (): FlexPace => ({ chunkTokens: 64 });

const LEAST_CHUNK_TOKENS = 16;
const MOST_CHUNK_TOKENS = 8192;
/** Of the objective: steps vary, and composing takes time as well. */
const USABLE_SHARE = 0.9;

/** `tokenCount` where the sequence is not flex or nobody reads along. */
export function flexTokenCount(
  sequence: OpenSequence,
  composed: Composed,
  learned: { readonly fit: StepTimeFit | null; readonly flexPace: FlexPace },
  tokenCount: number,
): number {
  if (sequence.spec.serviceTier !== 'flex') return tokenCount;
  const usableMs = usableMsOf(composed);
  if (usableMs === null) return tokenCount;
  const { fit, flexPace } = learned;
  let count = Math.min(tokenCount, flexPace.chunkTokens, remainingTokenCount(sequence));
  const start = sequence.computedTokenCount;
  const fits = (): boolean => {
    if (fit === null) return true;
    const tokenIds = sequence.tokenIds.slice(start, start + count);
    const chunk = { kind: 'prefill', contextLength: start, tokenIds } as const;
    return predictMs(fit, featuresOf([...composed.entries, chunk])) <= usableMs;
  };
  while (count > LEAST_CHUNK_TOKENS && !fits()) {
    count = Math.max(LEAST_CHUNK_TOKENS, Math.floor(count * 0.75));
  }
  return count;
}

/** A step has settled. */
export function notePace(pace: FlexPace, composed: Composed, deviceMs: number): void {
  const usableMs = usableMsOf(composed);
  if (usableMs === null) return;
  const hasFlexPrefill = composed.entries.some(
    ({ kind }, index) => kind !== 'decode' && composed.sequences[index]?.spec.serviceTier === 'flex',
  );
  if (!hasFlexPrefill) return;
  const wanted = deviceMs > usableMs ? pace.chunkTokens / 2 : pace.chunkTokens * 1.1 + 1;
  pace.chunkTokens = Math.floor(Math.min(MOST_CHUNK_TOKENS, Math.max(LEAST_CHUNK_TOKENS, wanted)));
}

/** What the tightest ITL objective among the decoded streams leaves a step; null where nobody reads one. */
function usableMsOf({ entries, sequences }: Composed): number | null {
  let tightestMs = Number.POSITIVE_INFINITY;
  for (const [index, { spec }] of sequences.entries()) {
    const isRead = spec.serviceTier !== 'flex' && spec.objectives.itlMs > 0;
    if (isRead && entries[index]?.kind === 'decode') tightestMs = Math.min(tightestMs, spec.objectives.itlMs);
  }
  return tightestMs === Number.POSITIVE_INFINITY ? null : USABLE_SHARE * tightestMs;
}
