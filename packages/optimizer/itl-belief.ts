/**
 * How far replays are off the ITL p99 of real traffic, and so how likely a path misses its ITL objective. Learned as the cost's
 * error is, from canaries (both sides) and from the live path's own gaps. Paths of one worker err together, those with equal
 * kernels more so. Called by search-paths.ts and propose.ts. Pure.
 */
import { type ExecutionPath, kernelsId, pathId } from '@variator/kernels/execution-path';
import { type Belief, learned } from './arm-posterior.ts';
import { mean, varianceOf } from './moments.ts';
import type { ItlError } from './path-memory.ts';

export interface ItlKnowledge {
  /** Of log(real / replayed), before this regime's errors are known. */
  readonly spread: number;
  /** Of this regime. */
  readonly errors: readonly ItlError[];
}

/** Of the error's variance: what all paths share (traffic, machine), what those with equal kernels share, and a path's own. */
const SHARED = 1 / 4;
const SHARED_BY_KERNELS = 1 / 4;

/**
 * That its ITL p99 is above the objective, 0..1.
 * @param logGaps log(ITL p99 / objective) of one replay or of several draws; their scatter counts where it is more than what
 * replays are off by, in which the fit's error is counted
 */
export function missRisk(path: ExecutionPath, logGaps: readonly number[], knowledge: ItlKnowledge): number {
  if (!logGaps.every(Number.isFinite)) return logGaps.some((log) => log > 0) ? 1 : 0;
  const error = errorOf(path, knowledge);
  const spread = Math.sqrt(Math.max(error.variance, varianceOf(logGaps)));
  return normalTail(-(mean(logGaps) + error.mean) / spread);
}

/** Of a path's log(real / replayed), given those that are known. */
function errorOf(path: ExecutionPath, { spread, errors }: ItlKnowledge): { mean: number; variance: number } {
  const paths = [path, ...errors.map((error) => error.path)];
  const variance = spread ** 2;
  const shared = (a: ExecutionPath, b: ExecutionPath): number => {
    if (pathId(a) === pathId(b)) return 1;
    return SHARED + (kernelsId(a) === kernelsId(b) ? SHARED_BY_KERNELS : 0);
  };
  const prior: Belief = {
    ids: paths.map(pathId),
    mean: paths.map(() => 0),
    covariance: paths.map((a) => paths.map((b) => variance * shared(a, b))),
  };
  const after = errors.reduce(
    (belief, error, index) =>
      learned(
        belief,
        paths.map((_, place) => Number(place === index + 1)),
        error,
      ),
    prior,
  );
  return { mean: after.mean[0] ?? 0, variance: after.covariance[0]?.[0] ?? variance };
}

/** P(Z > z), Abramowitz and Stegun 26.2.17. */
function normalTail(z: number): number {
  if (z < 0) return 1 - normalTail(-z);
  const t = 1 / (1 + 0.2316419 * z);
  const series =
    t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (series * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
}
