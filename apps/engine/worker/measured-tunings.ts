/**
 * The microbenchmark of linear layers at load: which tuning each matrix shape is quickest with, by row count, on this machine
 * and with this model; once, then kept in a file. Called by cpu-device.ts before the first step; linear-dispatch.ts decides.
 */
import type { LinearVariantId } from '@variator/kernels/catalogue';
import {
  candidateTunings,
  type LinearShape,
  type LinearTunings,
  priorTunings,
  quickestTuning,
  rowBuckets,
  tuningNumbers,
} from '@variator/kernels/linear-dispatch';
import type { ModelHandle, NativeKernels } from '@variator/kernels/native';
import { z } from 'zod';
import { keep, readKept, type TuningsPlace } from './kept-tunings.ts';
import type { Measuring, MeasuringLimit } from './measuring.ts';

const SAMPLE_COUNT = 9;
/** Fewer say nothing. */
const LEAST_SAMPLE_COUNT = 5;

const tuning = z.object({
  rowsAtOnce: z.int(),
  prefetchGroups: z.int(),
  slabRows: z.int(),
  panelsAtOnce: z.int(),
});
const kept = z.array(z.array(tuning).length(rowBuckets.length));

export interface TuningsOf extends TuningsPlace {
  readonly native: Pick<NativeKernels, 'linearShapes' | 'timeLinear'>;
  readonly handle: ModelHandle;
  readonly linear: LinearVariantId;
  readonly threadCount: number;
}

/** [rows, columns] of the model's distinct matrices, in the native side's order. */
export function linearShapesOf(
  native: Pick<NativeKernels, 'linearShapes'>,
  handle: ModelHandle,
): LinearShape[] {
  const sizes = native.linearShapes(handle);
  return Array.from({ length: sizes.length / 2 }, (_, index) => [
    sizes[2 * index] ?? 0,
    sizes[2 * index + 1] ?? 0,
  ]);
}

/** What was kept for exactly this, or null. */
export function keptTunings(of: TuningsOf): LinearTunings | null {
  const tunings = readKept(placeOf(of), kept);
  return tunings?.length === of.native.linearShapes(of.handle).length / 2 ? tunings : null;
}

const placeOf = ({ file, key, linear, threadCount }: TuningsOf): TuningsPlace => ({
  file,
  key: `${key} ${linear} ${threadCount}`,
});

/** Measures, a call for each row count, and keeps what came of it. */
export async function* measureTunings(
  of: TuningsOf,
  { limitMs, mostCallMs }: MeasuringLimit,
): Measuring<LinearTunings> {
  const { native, handle, linear, threadCount } = of;
  const shapes = linearShapesOf(native, handle);
  const prior = priorTunings(shapes);
  const chosen = prior.map((buckets) => [...buckets]);
  let leftMs = limitMs;
  for (const [bucket, rowCount] of rowBuckets.entries()) {
    if (leftMs <= 0) break;
    const start = performance.now();
    const candidates = candidateTunings(shapes, rowCount);
    const { usPerPanel, sampleCounts } = await native.timeLinear(
      handle,
      linear,
      threadCount,
      rowCount,
      Int32Array.from(candidates.flatMap(tuningNumbers)),
      SAMPLE_COUNT,
      // The larger half of what is left is for the row counts to come, which take longer.
      Math.min(mostCallMs, bucket === rowBuckets.length - 1 ? leftMs : leftMs / 2),
    );
    leftMs -= performance.now() - start;
    for (const [index, tunings] of chosen.entries()) {
      const first = index * candidates.length;
      const us = candidates.map((_, i) =>
        (sampleCounts[first + i] ?? 0) < LEAST_SAMPLE_COUNT
          ? Number.NaN
          : (usPerPanel[first + i] ?? Number.NaN),
      );
      const own = tunings[bucket];
      if (own !== undefined) tunings[bucket] = quickestTuning(own, candidates, us);
    }
    yield;
  }
  keep(placeOf(of), chosen);
  return chosen;
}
