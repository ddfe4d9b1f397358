/**
 * The microbenchmark of attention at load: which tuning is quickest, by kernel and by length of the context, on this machine
 * and with heads as this model has them; once, then kept in a file. Called by cpu-device.ts before the first step;
 * attention-dispatch.ts decides.
 */
import {
  type AttentionTunings,
  attentionNumbers,
  candidateAttentionTunings,
  contextBuckets,
  priorAttentionTunings,
  timedShapes,
} from '@variator/kernels/attention-dispatch';
import type { AttentionVariantId } from '@variator/kernels/catalogue';
import { attentionKernels } from '@variator/kernels/kernel-parameters';
import { quickestTuning } from '@variator/kernels/linear-dispatch';
import type { ModelHandle, NativeKernels } from '@variator/kernels/native';
import { z } from 'zod';
import { keep, readKept, type TuningsPlace } from './kept-tunings.ts';
import type { Measuring, MeasuringLimit } from './measuring.ts';

const SAMPLE_COUNT = 9;
/** Fewer say nothing. */
const LEAST_SAMPLE_COUNT = 5;
/** Of keys and values of one layer that are timed. */
const MOST_LAYER_BYTES = 64 * 2 ** 20;

const tuning = z.object({
  pairsAtOnce: z.int(),
  prefetchBlocks: z.int(),
  groupsPerSplit: z.int(),
  leastUnitsPerThread: z.int(),
});
const kept = z.array(z.array(tuning).length(contextBuckets.length)).length(attentionKernels.length);

export interface AttentionTuningsOf extends TuningsPlace {
  readonly native: Pick<NativeKernels, 'timeAttention'>;
  readonly handle: ModelHandle;
  readonly attention: AttentionVariantId;
  readonly splitTokens: number;
  readonly threadCount: number;
  readonly headsPerKvHead: number;
  /** Of a token and layer. */
  readonly kvBytes: number;
  /** Of a sequence. */
  readonly maxModelLenTokens: number;
}

/** What was kept for exactly this, or null. */
export const keptAttentionTunings = (of: AttentionTuningsOf): AttentionTunings | null =>
  readKept(placeOf(of), kept);

const placeOf = ({ file, key, attention, splitTokens, threadCount }: AttentionTuningsOf): TuningsPlace => ({
  file,
  key: `${key} ${attention} ${splitTokens} ${threadCount}`,
});

/** Measures, a call for each kernel, and keeps what came of it. */
export async function* measureAttention(
  of: AttentionTuningsOf,
  { limitMs, mostCallMs }: MeasuringLimit,
): Measuring<AttentionTunings> {
  const { native, handle, attention, splitTokens, threadCount, headsPerKvHead } = of;
  const chosen = priorAttentionTunings(attention).map((buckets) => [...buckets]);
  const mostTokens = Math.min(of.maxModelLenTokens, Math.floor(MOST_LAYER_BYTES / of.kvBytes));
  let leftMs = limitMs;
  for (const [kernel, { id }] of attentionKernels.entries()) {
    const shapes = timedShapes(id, mostTokens);
    const candidates = candidateAttentionTunings(attention, id, headsPerKvHead);
    if (shapes.length === 0 || leftMs <= 0) continue;
    const start = performance.now();
    const { usPerLayer, sampleCounts } = await native.timeAttention(
      handle,
      attention,
      splitTokens,
      threadCount,
      Int32Array.from(
        shapes.flatMap(({ sequenceCount, rowCount, contextLength }) => [
          sequenceCount,
          rowCount,
          contextLength,
        ]),
      ),
      Int32Array.from(candidates.flatMap(attentionNumbers)),
      SAMPLE_COUNT,
      Math.min(mostCallMs, leftMs / (attentionKernels.length - kernel)),
    );
    leftMs -= performance.now() - start;
    // Shapes stand for the first buckets, in their order.
    for (const index of shapes.keys()) {
      const first = index * candidates.length;
      const us = candidates.map((_, i) =>
        (sampleCounts[first + i] ?? 0) < LEAST_SAMPLE_COUNT
          ? Number.NaN
          : (usPerLayer[first + i] ?? Number.NaN),
      );
      const own = chosen[kernel]?.[index];
      if (own !== undefined) chosen[kernel]?.splice(index, 1, quickestTuning(own, candidates, us));
    }
    yield;
  }
  keep(placeOf(of), chosen);
  return chosen;
}
