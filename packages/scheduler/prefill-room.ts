/**
 * How many prompt tokens a step may take beside streams that somebody reads: what their tightest ITL objective leaves, by
 * the fit, and for flex also by what the last such steps took; always a few, so that prefills get on. And whether flex finds
 * room to decode beside them. Called by compose.ts and at settle. No clock.
 */
import type { BatchEntry } from './batch.ts';
import { nextKind, type OpenSequence, remainingTokenCount } from './open-sequence.ts';
import type { ServiceTier } from './sequence.ts';
import { featuresOf, predictMs, type StepFeatures, type StepTimeFit } from './step-time.ts';

interface Composed {
  readonly entries: readonly BatchEntry[];
  /** The sequence of each entry. */
  readonly sequences: readonly OpenSequence[];
}

/** What was learned from steps: halved after one that was too long, widened after one that was not. */
export interface FlexPace {
  chunkTokens: number;
}

interface Learned {
  readonly fit: StepTimeFit | null;
  readonly flexPace: FlexPace;
}

export const startingPace = (): FlexPace => ({ chunkTokens: 64 });

/** The first prefill of a step gets so many, whatever the objective leaves; those after it nothing below. */
const LEAST_CHUNK_TOKENS: Readonly<Record<ServiceTier, number>> = { priority: 64, default: 64, flex: 16 };
const MOST_CHUNK_TOKENS = 8192;
/**
 * Of the objective. Steps vary, and composing takes time as well; and what flex adds is felt by people who would have had
 * shorter gaps without it.
 */
const USABLE_SHARE: Readonly<Record<ServiceTier, number>> = { priority: 0.9, default: 0.9, flex: 0.5 };

/** At most `tokenCount`, which it is where nobody reads along; 0 where a prefill before it in the step took the room. */
export function chunkTokenCount(
  sequence: OpenSequence,
  composed: Composed,
  { fit, flexPace }: Learned,
  tokenCount: number,
): number {
  const { serviceTier } = sequence.spec;
  const usableMs = usableMsOf(composed, serviceTier);
  if (usableMs === null) return tokenCount;
  let most = Math.min(tokenCount, remainingTokenCount(sequence));
  if (serviceTier === 'flex') most = Math.min(most, flexPace.chunkTokens);
  if (fit === null) return most;
  const features = featuresOf(composed.entries);
  const fits = (count: number): boolean =>
    predictMs(fit, withPrefill(features, sequence.computedTokenCount, count)) <= usableMs;
  if (fits(most)) return most;
  let least = Math.min(most, LEAST_CHUNK_TOKENS[serviceTier]);
  if (!fits(least)) return features.prefillSequenceCount === 0 ? least : 0;
  // Hardly ever do more tokens take less time: the last count that fits lies between, and `least` is one that does.
  while (most - least > 1) {
    const middle = (least + most) >>> 1;
    if (fits(middle)) least = middle;
    else most = middle;
  }
  return least;
}

/** False where a step has a prefill already and no room for the least chunk of another. */
export function hasPrefillRoom(composed: Composed, { fit }: Learned): boolean {
  const usableMs = usableMsOf(composed, 'default');
  if (usableMs === null || fit === null) return true;
  const features = featuresOf(composed.entries);
  if (features.prefillSequenceCount === 0) return true;
  return predictMs(fit, withPrefill(features, 0, LEAST_CHUNK_TOKENS.flex)) <= usableMs;
}

/** Whether all that run, and one more, could decode in one step within what those who are read along with leave. */
export function hasDecodeRoom(
  running: readonly OpenSequence[],
  candidate: OpenSequence,
  fit: StepTimeFit | null,
): boolean {
  const tightestMs = tightestItlMs(running.filter((sequence) => nextKind(sequence) === 'decode'));
  if (fit === null || tightestMs === null) return true;
  const count = running.length + 1;
  const contextTokens = running.reduce(
    (sum, { tokenIds }) => sum + tokenIds.length,
    candidate.tokenIds.length,
  );
  const predictedMs = predictMs(fit, {
    tokenCount: count,
    decodeSequenceCount: count,
    prefillSequenceCount: 0,
    prefillTokenCount: 0,
    decodeContextTokens: contextTokens,
    prefillAttention: 0,
  });
  return predictedMs <= USABLE_SHARE.flex * tightestMs;
}

/** A step has settled. */
export function notePace(pace: FlexPace, composed: Composed, deviceMs: number): void {
  const usableMs = usableMsOf(composed, 'flex');
  if (usableMs === null) return;
  const hasFlexPrefill = composed.entries.some(
    ({ kind }, index) => kind !== 'decode' && composed.sequences[index]?.spec.serviceTier === 'flex',
  );
  if (!hasFlexPrefill) return;
  const wanted = deviceMs > usableMs ? pace.chunkTokens / 2 : pace.chunkTokens * 1.1 + 1;
  pace.chunkTokens = Math.floor(Math.min(MOST_CHUNK_TOKENS, Math.max(LEAST_CHUNK_TOKENS.flex, wanted)));
}

/** What the tightest ITL objective among the decoded streams leaves a step to a tier; null where nobody reads one. */
function usableMsOf({ entries, sequences }: Composed, serviceTier: ServiceTier): number | null {
  const tightestMs = tightestItlMs(sequences.filter((_, index) => entries[index]?.kind === 'decode'));
  return tightestMs === null ? null : USABLE_SHARE[serviceTier] * tightestMs;
}

function tightestItlMs(sequences: readonly OpenSequence[]): number | null {
  let tightestMs = Number.POSITIVE_INFINITY;
  for (const { spec } of sequences) {
    const isRead = spec.serviceTier !== 'flex' && spec.objectives.itlMs > 0;
    if (isRead) tightestMs = Math.min(tightestMs, spec.objectives.itlMs);
  }
  return tightestMs === Number.POSITIVE_INFINITY ? null : tightestMs;
}

const withPrefill = (features: StepFeatures, contextLength: number, count: number): StepFeatures => ({
  ...features,
  tokenCount: features.tokenCount + count,
  prefillSequenceCount: features.prefillSequenceCount + 1,
  prefillTokenCount: features.prefillTokenCount + count,
  prefillAttention: features.prefillAttention + count * (contextLength + count / 2),
});
