/**
 * How the matrices of a model are walked: by matrix shape and row count, a choice of the parameters that the catalogue
 * states. A prior ranks, a short microbenchmark at load refines it (worker/measured-tunings.ts), a path may override it.
 * None of it changes a bit of a result. Pure; the native side reads the table that `dispatchTable` makes (native/linear_dispatch.h).
 */
import {
  type LinearKernel,
  linearKernels,
  type TuningParameter,
  tuningParameters,
} from './kernel-parameters.ts';
import { PRIOR_TILES, settingsOf, withTiles } from './tiles.ts';

/** The parameters of a linear layer's kernel, see `linearKernels`. */
export type LinearTuning = Readonly<Record<TuningParameter, number>>;

/** [rows, columns] of a weight matrix. */
export type LinearShape = readonly [rows: number, columns: number];

/** Row counts of a step, by their upper ends; the last bucket takes all that is more and is measured at this number. */
export const rowBuckets = [1, 2, 4, 8, 16, 32, 64, 128, 256] as const;

/** By shape, then by bucket. */
export type LinearTunings = readonly (readonly LinearTuning[])[];

/** What a second-level cache is certain to hold beside activations, bytes. */
const GROUP_BYTES = 384 * 1024;

/** The kernel that a row count is multiplied by. */
export function linearKernelFor(rowCount: number): LinearKernel {
  const kernel = linearKernels.find(({ mostRows }) => rowCount <= mostRows);
  if (kernel === undefined) throw new Error(`There is no linear kernel for ${rowCount} rows.`);
  return kernel;
}

/**
 * What to begin with, from sizes alone. Few rows are bound by memory: weights are fetched ahead. Many rows are bound by
 * arithmetic: a group of panels that stays in the second-level cache passes before the next rows, so that neither weights nor
 * activations come from further away more than once.
 */
export function priorTuning([, columns]: LinearShape, rowCount: number): LinearTuning {
  if (rowCount <= 32) return { rowsAtOnce: 6, prefetchGroups: 4, slabRows: 24, panelsAtOnce: 1 };
  const panelBytes = Math.ceil(columns / 32) * 1088;
  const panelsAtOnce = Math.max(1, Math.min(8, Math.floor(GROUP_BYTES / panelBytes)));
  return { rowsAtOnce: 6, prefetchGroups: 4, slabRows: 24, panelsAtOnce };
}

/** What is worth measuring for a row count beside the prior of any shape: few, far apart. */
export function candidateTunings(shapes: readonly LinearShape[], rowCount: number): LinearTuning[] {
  const base: LinearTuning = { rowsAtOnce: 6, prefetchGroups: 4, slabRows: 24, panelsAtOnce: 1 };
  const { id } = linearKernelFor(rowCount);
  const others: Record<LinearKernel['id'], Partial<LinearTuning>[]> = {
    gemv: [{}, { prefetchGroups: 0 }, { prefetchGroups: 2 }, { prefetchGroups: 8 }],
    skinny: [{}, { rowsAtOnce: 4 }, { rowsAtOnce: 5 }, { slabRows: 12 }, { slabRows: 12, panelsAtOnce: 4 }],
    full: [
      {},
      { rowsAtOnce: 5, slabRows: 20, panelsAtOnce: 4 },
      { slabRows: 48, panelsAtOnce: 1 },
      { slabRows: 48, panelsAtOnce: 4 },
      { slabRows: 96, panelsAtOnce: 4 },
    ],
  };
  const all = [
    ...shapes.map((shape) => priorTuning(shape, rowCount)),
    ...others[id].map((change) => ({ ...base, ...change })),
  ];
  return all.filter((one, index) => all.findIndex((other) => isSame(one, other)) === index);
}

/**
 * The quickest of the candidates, where it is clearly quicker than the prior: by at least `leastGain`.
 * @param us one number for each candidate; NaN where nothing was measured
 */
export function quickestTuning<Tuning extends Readonly<Record<string, number>>>(
  prior: Tuning,
  candidates: readonly Tuning[],
  us: readonly number[],
  leastGain = 0.03,
): Tuning {
  const priorUs = us[candidates.findIndex((one) => isSame(one, prior))] ?? Number.NaN;
  let best = { tuning: prior, us: priorUs * (1 - leastGain) };
  for (const [index, tuning] of candidates.entries()) {
    const own = us[index] ?? Number.NaN;
    if (own < best.us) best = { tuning, us: own };
  }
  return best.tuning;
}

export const priorTunings = (shapes: readonly LinearShape[]): LinearTunings =>
  shapes.map((shape) => rowBuckets.map((rowCount) => priorTuning(shape, rowCount)));

/** Of one kind: both have the same parameters. */
export const isSame = <Tuning extends Readonly<Record<string, number>>>(a: Tuning, b: Tuning): boolean =>
  Object.keys(a).every((parameter) => a[parameter] === b[parameter]);

/** As the native side reads it: [shapes, buckets, parameters]. */
export function dispatchTable(tunings: LinearTunings): Int32Array {
  return Int32Array.from(tunings.flatMap((buckets) => buckets.flatMap(tuningNumbers)));
}

/** A tuning as the native side reads it. */
export const tuningNumbers = (tuning: LinearTuning): number[] =>
  tuningParameters.map((parameter) => tuning[parameter]);

/** The tunings that a path is to run with. @throws Error for tiles that `readTiles` refuses */
export function tuningsOfTiles(
  tiles: string,
  shapes: readonly LinearShape[],
  measured: LinearTunings | null,
): LinearTunings {
  const settings = settingsOf(tiles);
  const base = tiles === PRIOR_TILES || measured === null ? priorTunings(shapes) : measured;
  return base.map((buckets) =>
    buckets.map((tuning, bucket) => withTiles(tuning, linearKernelFor(rowBuckets[bucket] ?? 1).id, settings)),
  );
}
