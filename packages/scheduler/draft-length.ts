/**
 * How many drafted tokens a step should verify: as many as make tokens per predicted millisecond most, and none where that
 * gains too little (SmartSpec, Liu et al. 2024). Called by drafts.ts. Pure.
 */
import { predictMs, type StepFeatures, type StepTimeFit } from './step-time.ts';

export interface Drafted {
  /** Tokens that were found. */
  readonly tokenCount: number;
  /** That one more is accepted where all before it were, 0 to 1. */
  readonly acceptance: number;
}

/** Drafts that gain less are not worth a wrong prediction. */
const LEAST_GAIN = 1.05;
/** Without a fit: so many each, while a step computes no more than this. */
const UNFITTED_DRAFTS = 4;
const UNFITTED_STEP_TOKENS = 32;

/** Tokens that so many drafts bring on average: a + a^2 + ... + a^k. */
export function expectedTokens(acceptance: number, count: number): number {
  let sum = 0;
  let all = 1;
  for (let index = 0; index < count; index += 1) {
    all *= acceptance;
    sum += all;
  }
  return sum;
}

/**
 * The most drafts that any one of the step's sequences verifies; 0 for none.
 * @param features of the step without drafts
 * @param mostTokens that may be computed besides
 */
export function draftLength(
  drafted: readonly Drafted[],
  features: StepFeatures,
  fit: StepTimeFit | null,
  mostTokens: number,
): number {
  const longest = drafted.reduce((most, { tokenCount }) => Math.max(most, tokenCount), 0);
  const tokensAt = (length: number): number =>
    drafted.reduce((sum, { tokenCount }) => sum + Math.min(length, tokenCount), 0);
  let best = 0;
  let bestGain = LEAST_GAIN;
  const plainMs = fit === null ? 0 : predictMs(fit, features);
  for (let length = 1; length <= longest; length += 1) {
    const added = tokensAt(length);
    if (added > mostTokens) break;
    if (fit === null) {
      if (length <= UNFITTED_DRAFTS && features.tokenCount + added <= UNFITTED_STEP_TOKENS) best = length;
      continue;
    }
    const expected = drafted.reduce(
      (sum, { tokenCount, acceptance }) => sum + expectedTokens(acceptance, Math.min(length, tokenCount)),
      0,
    );
    const ms = predictMs(fit, { ...features, tokenCount: features.tokenCount + added });
    const emitted = Math.max(1, features.decodeSequenceCount);
    const gain = ((emitted + expected) / emitted) * (plainMs / ms);
    if (gain > bestGain) {
      best = length;
      bestGain = gain;
    }
  }
  return best;
}
