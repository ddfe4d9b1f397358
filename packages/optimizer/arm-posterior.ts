/**
 * What is believed of several paths' cost at once: log costs relative to the incumbent, jointly normal. Replays are the
 * prior, canaries the observations; which path to try next, and whether trying is worth it (algorithms.md f). Called by
 * propose.ts. Pure; draws are seeded.
 */
import { robustCholesky } from './cholesky.ts';
import type { SeededRandom } from './seeded-random.ts';

export interface Belief {
  /** The incumbent first. */
  readonly ids: readonly string[];
  /** Log cost. */
  readonly mean: readonly number[];
  /** [ids][ids] */
  readonly covariance: readonly (readonly number[])[];
}

export interface ReplayedArm {
  readonly id: string;
  /** log(cost / incumbent's) as replayed on fresh seeds. */
  readonly logRatio: number;
  /** Of that mean, over the draws. */
  readonly variance: number;
}

/**
 * Each path's replay errs by itself, so that the ratio of any two errs by `spread`. The best of several looks better than
 * it is: candidates are pulled to their common mean, the more the nearer they lie (winner's curse). The noise that made one
 * look best is that of the draws; what no replay can see has not helped it to be chosen.
 * @param rivals log ratios of all that the winner was chosen from
 * @param bridges paths that nobody replayed now but canaries compared with others
 */
export function beliefOf(
  incumbentId: string,
  arms: readonly ReplayedArm[],
  rivals: readonly number[],
  spread: number,
  drawCount: number,
  bridges: readonly ReplayedArm[] = [],
): Belief {
  const own = spread ** 2 / 2;
  const drawn = arms.reduce((sum, { variance }) => sum + variance, 0) / Math.max(1, arms.length);
  const { mean, share } = shrinkage(rivals, drawn / drawCount);
  const nodes = [
    { id: incumbentId, mean: 0, variance: own },
    ...arms.map(({ id, logRatio, variance }) => ({
      id,
      mean: mean + share * (logRatio - mean),
      variance: own + variance,
    })),
    ...bridges.map(({ id, logRatio, variance }) => ({ id, mean: logRatio, variance })),
  ];
  return {
    ids: nodes.map(({ id }) => id),
    mean: nodes.map((node) => node.mean),
    covariance: nodes.map(({ variance }, row) => nodes.map((_, column) => (row === column ? variance : 0))),
  };
}

/** How much of a candidate's distance from its rivals' mean is believed. */
function shrinkage(rivals: readonly number[], noise: number): { mean: number; share: number } {
  if (rivals.length < 2) return { mean: rivals[0] ?? 0, share: 1 };
  const mean = rivals.reduce((sum, value) => sum + value, 0) / rivals.length;
  const variance = rivals.reduce((sum, value) => sum + (value - mean) ** 2, 0) / (rivals.length - 1);
  const share = variance / (variance + noise);
  return { mean, share };
}

/** After a canary measured log(to / from). Unknown ids are new to it. */
export function observed(
  belief: Belief,
  canary: { readonly from: string; readonly to: string; readonly mean: number; readonly variance: number },
): Belief {
  if (!belief.ids.includes(canary.from) || !belief.ids.includes(canary.to)) return belief;
  const weights = belief.ids.map((id) => Number(id === canary.to) - Number(id === canary.from));
  return learned(belief, weights, canary);
}

/** After a weighted sum of the values was measured: Kalman's update. */
export function learned(
  belief: Belief,
  weights: readonly number[],
  measured: { readonly mean: number; readonly variance: number },
): Belief {
  const sumOf = (values: readonly number[]): number =>
    weights.reduce((sum, weight, index) => sum + weight * (values[index] ?? 0), 0);
  const direction = belief.covariance.map(sumOf);
  const variance = sumOf(direction) + measured.variance;
  const surprise = measured.mean - sumOf(belief.mean);
  return {
    ids: belief.ids,
    mean: belief.mean.map((mean, row) => mean + ((direction[row] ?? 0) / variance) * surprise),
    covariance: belief.covariance.map((line, row) =>
      line.map((value, column) => value - ((direction[row] ?? 0) * (direction[column] ?? 0)) / variance),
    ),
  };
}

/** Path `id` against the incumbent, as a normal. */
export function gainOf(belief: Belief, id: string): { readonly mean: number; readonly spread: number } {
  const index = belief.ids.indexOf(id);
  if (index <= 0) return { mean: 0, spread: 0 };
  const cov = belief.covariance;
  const variance = (cov[0]?.[0] ?? 0) + (cov[index]?.[index] ?? 0) - 2 * (cov[0]?.[index] ?? 0);
  return {
    mean: (belief.mean[index] ?? 0) - (belief.mean[0] ?? 0),
    spread: Math.sqrt(Math.max(0, variance)),
  };
}

export interface Choice {
  /** Null: stay. */
  readonly id: string | null;
  /** That the choice, or staying, is the best of all. */
  readonly probabilityBest: number;
  /** Expected log cost that knowing the truth would save. */
  readonly valueOfKnowing: number;
}

const DRAWS = 2000;
const SURE = 0.9;
/** Log cost; below this it is not worth finding out. */
const LEAST_VALUE = 0.005;
/** Of missing the ITL objective: what a path may be taken for good with. */
export const SAFE = 0.05;

/**
 * The best one where it is clear or finding out is worth little; otherwise a draw (Thompson), so that the likely best is
 * tried most and the others sometimes. `isWorthTrying` bars paths, never staying. A path that may miss the ITL objective is
 * worth nothing where it does: it wins only draws in which it keeps it, and nobody settles for it before a canary told.
 * @param riskOf that a path misses the objective, 0..1
 */
export function choose(
  belief: Belief,
  isWorthTrying: (id: string) => boolean,
  riskOf: (id: string) => number,
  random: SeededRandom,
): Choice {
  const risks = belief.ids.map((id, index) => (index === 0 ? 0 : isWorthTrying(id) ? riskOf(id) : 1));
  const lowest = (values: readonly number[], mayBe: (index: number) => boolean): number => {
    let best = 0;
    values.forEach((value, index) => {
      if (mayBe(index) && value < (values[best] ?? 0)) best = index;
    });
    return best;
  };
  const factor = robustCholesky(belief.covariance);
  const wins = belief.ids.map(() => 0);
  let sumOfLowest = 0;
  let thompson = 0;
  for (let draw = 0; draw < DRAWS; draw += 1) {
    const normals = belief.ids.map(() => random.normal());
    const values = belief.mean.map((mean, row) =>
      (factor[row] ?? []).reduce((sum, weight, column) => sum + weight * (normals[column] ?? 0), mean),
    );
    const keeps = risks.map((risk) => random.uniform() >= risk);
    const best = lowest(values, (index) => keeps[index] === true);
    wins[best] = (wins[best] ?? 0) + 1;
    sumOfLowest += values[best] ?? 0;
    if (thompson === 0) thompson = best;
  }
  const settled = lowest(belief.mean, (index) => (risks[index] ?? 1) <= SAFE);
  const valueOfKnowing = (belief.mean[settled] ?? 0) - sumOfLowest / DRAWS;
  const chosen = (index: number): Choice => ({
    id: index > 0 ? (belief.ids[index] ?? null) : null,
    probabilityBest: (wins[index] ?? 0) / DRAWS,
    valueOfKnowing,
  });
  const isClear = (wins[settled] ?? 0) / DRAWS > SURE || valueOfKnowing < LEAST_VALUE;
  return chosen(isClear || thompson === 0 ? settled : thompson);
}
