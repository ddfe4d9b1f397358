/**
 * Whether a path keeps its ITL objective, by counting the gaps that are longer: the 99th percentile lies within the objective
 * where at most one in a hundred does. A block's own p99 is near the longest of its hundred gaps; counts add up over
 * blocks, and over canaries. Called by canary-judge.ts and path-memory.ts. Pure.
 */
import { MOST_LATE_GAPS } from './feasible-paths.ts';

export interface LateGaps {
  /** Gaps, as many as tell independently: a step's sequences have one gap together. */
  readonly count: number;
  /** Of them, longer than the objective; a share of the count, so not whole. */
  readonly lateCount: number;
}

export const NO_GAPS: LateGaps = { count: 0, lateCount: 0 };

/** Effective count after Kish: (sum of weights)^2 / sum of their squares. */
export function lateGapsOf(
  steps: readonly { readonly itlMeanMs: number; readonly itlTokenCount: number }[],
  objectiveMs: number,
): LateGaps {
  let gapCount = 0;
  let squares = 0;
  let late = 0;
  for (const { itlMeanMs, itlTokenCount } of steps) {
    gapCount += itlTokenCount;
    squares += itlTokenCount ** 2;
    if (itlMeanMs > objectiveMs) late += itlTokenCount;
  }
  if (gapCount === 0) return NO_GAPS;
  const count = gapCount ** 2 / squares;
  return { count, lateCount: (count * late) / gapCount };
}

export const addGaps = (all: readonly LateGaps[]): LateGaps =>
  all.reduce(
    (sum, { count, lateCount }) => ({ count: sum.count + count, lateCount: sum.lateCount + lateCount }),
    NO_GAPS,
  );

export const scaledGaps = ({ count, lateCount }: LateGaps, share: number): LateGaps => ({
  count: count * share,
  lateCount: lateCount * share,
});

/** Whether so many were late as the objective allows, or fewer: by what was seen, surely or not. True of none. */
export const isWithinMost = ({ count, lateCount }: LateGaps): boolean => lateCount <= MOST_LATE_GAPS * count;

/** What keeps the objective is held to leave a third of what it may late, what breaks it three times as much. */
const KEPT_SHARE = MOST_LATE_GAPS / 3;
const BROKEN_SHARE = 3 * MOST_LATE_GAPS;

/**
 * Log of an e-value against "more than one gap in a hundred is late" (likelihood ratio, Ville's inequality): while that is true it
 * is ever above log(1 / alpha) with a chance of alpha at most, whenever one looks. Those of separate canaries add up.
 */
export const evidenceOfKeeping = (gaps: LateGaps): number => logLikelihoodRatio(gaps, KEPT_SHARE);

/** The same against "at most one gap in a hundred is late". */
export const evidenceOfBreaking = (gaps: LateGaps): number => logLikelihoodRatio(gaps, BROKEN_SHARE);

const logLikelihoodRatio = ({ count, lateCount }: LateGaps, share: number): number =>
  lateCount * Math.log(share / MOST_LATE_GAPS) +
  (count - lateCount) * Math.log((1 - share) / (1 - MOST_LATE_GAPS));
