/**
 * The 90 % band around a prediction, kept honest by what came: adaptive conformal inference (Gibbs and Candes, 2021). The
 * service shows it every measured step beside its prediction, before the fit learns from that step. Pure: one state a path.
 *
 *   half-width = (1 - a) quantile of the last |log(measured / predicted)|      a <- a + rate (0.1 - missed)
 */
import { quantile } from './quantile.ts';

export interface StepTimeBand {
  /** The share of the last scores that the band leaves out now; near 0.1 while the future is like them. */
  readonly missShare: number;
  /** |log(measured / predicted)|, newest last, at most MOST_SCORES. */
  readonly scores: readonly number[];
}

const TARGET_MISS_SHARE = 0.1;
const RATE = 0.005;
const MOST_SCORES = 500;
/** With fewer a quantile says little. */
const LEAST_SCORES = 20;
/** So far the share may go: the band never leaves out more than a third, nor less than one of the scores it holds. */
const SHARE_RANGE = [1 / MOST_SCORES, 1 / 3] as const;

export const freshBand: StepTimeBand = { missShare: TARGET_MISS_SHARE, scores: [] };

/** Null before enough steps were seen. */
export function halfWidthOf({ missShare, scores }: StepTimeBand): number | null {
  return scores.length < LEAST_SCORES ? null : quantile(scores, 1 - missShare);
}

/** One chunk of steps, oldest first, each by its log(measured / predicted); the band stands still within the chunk. */
export function bandAfter(band: StepTimeBand, logRatios: readonly number[]): StepTimeBand {
  const seen = logRatios.filter(Number.isFinite).map(Math.abs);
  const halfWidth = halfWidthOf(band);
  const [least, most] = SHARE_RANGE;
  const missShare =
    halfWidth === null
      ? band.missShare
      : seen.reduce(
          (share, score) =>
            Math.min(most, Math.max(least, share + RATE * (TARGET_MISS_SHARE - (score > halfWidth ? 1 : 0)))),
          band.missShare,
        );
  return { missShare, scores: [...band.scores, ...seen].slice(-MOST_SCORES) };
}
