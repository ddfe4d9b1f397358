/**
 * How attention by splits is computed: by kernel (how many rows of a sequence a step has) and by how long its context is, a
 * choice of the parameters that the catalogue states. One table for each attention variant and size of splits of a model,
 * whose heads have one shape. A prior ranks, a short microbenchmark at load refines it (worker/measured-attention.ts), a path
 * may override it. None of it changes a bit. Pure; native/attention_dispatch.h reads the table that `attentionTable` makes.
 */
import type { AttentionVariantId } from './catalogue.ts';
import {
  type AttentionKernel,
  type AttentionParameter,
  attentionKernels,
  attentionParameters,
} from './kernel-parameters.ts';
import { isSame } from './linear-dispatch.ts';
import { PRIOR_TILES, settingsOf, withTiles } from './tiles.ts';

export type AttentionTuning = Readonly<Record<AttentionParameter, number>>;

/** Tokens of a context behind the step's rows, by their upper ends; the last bucket takes all that is more. */
export const contextBuckets = [256, 1024, 4096, 16_384] as const;

/** By kernel, in the catalogue's order, then by bucket. */
export type AttentionTunings = readonly (readonly AttentionTuning[])[];

/** What is timed for a kernel and a bucket. */
export interface TimedShape {
  readonly sequenceCount: number;
  /** Of each sequence. */
  readonly rowCount: number;
  readonly contextLength: number;
}

const MOST_SEQUENCES = 16;
const PREFILL_ROWS = 32;

/**
 * What to begin with, from sizes alone. As many pairs at once as registers hold, so that keys and values are read seldom; the
 * next block fetched ahead, but of float32, whose rows are long enough for the machine to see the next one coming by itself.
 */
export const priorAttentionTuning = (attention: AttentionVariantId): AttentionTuning => ({
  pairsAtOnce: 6,
  prefetchBlocks: attention === 'attention.float32' ? 0 : 1,
  groupsPerSplit: 1,
  leastUnitsPerThread: 4,
});

/** What is worth measuring, the prior first: few, far apart. */
export function candidateAttentionTunings(
  attention: AttentionVariantId,
  kernelId: AttentionKernel['id'],
  headsPerKvHead: number,
): AttentionTuning[] {
  const prior = priorAttentionTuning(attention);
  // A decoding row has no more pairs than heads.
  const others: Record<AttentionKernel['id'], Partial<AttentionTuning>[]> = {
    decode: [
      { prefetchBlocks: 0 },
      { prefetchBlocks: 1 },
      { prefetchBlocks: 2 },
      { prefetchBlocks: 4 },
      ...[2, 4].filter((pairs) => pairs < headsPerKvHead).map((pairsAtOnce) => ({ pairsAtOnce })),
    ],
    prefill: [{ prefetchBlocks: 0 }, { pairsAtOnce: 4 }, { groupsPerSplit: 4 }, { groupsPerSplit: 12 }],
  };
  const all = [prior, ...others[kernelId].map((change) => ({ ...prior, ...change }))];
  return all.filter((one, index) => all.findIndex((other) => isSame(one, other)) === index);
}

/**
 * Shapes that stand for the buckets, as far as a context of their length is within the model and within `mostTokens` of
 * cache: what is beyond stays as the prior says.
 */
export function timedShapes(kernelId: AttentionKernel['id'], mostTokens: number): TimedShape[] {
  return contextBuckets.flatMap((length): TimedShape[] => {
    if (length > mostTokens) return [];
    const rowCount = kernelId === 'decode' ? 1 : PREFILL_ROWS;
    const fitting = Math.min(MOST_SEQUENCES, Math.floor(mostTokens / length));
    const sequenceCount = kernelId === 'decode' ? fitting : 1;
    return [{ sequenceCount, rowCount, contextLength: length - rowCount }];
  });
}

export const priorAttentionTunings = (attention: AttentionVariantId): AttentionTunings =>
  attentionKernels.map(() => contextBuckets.map(() => priorAttentionTuning(attention)));

/** The tunings that a path is to run with. @throws Error for tiles that `readTiles` refuses */
export function attentionTuningsOfTiles(
  tiles: string,
  attention: AttentionVariantId,
  measured: AttentionTunings | null,
): AttentionTunings {
  const settings = settingsOf(tiles);
  const base = tiles === PRIOR_TILES || measured === null ? priorAttentionTunings(attention) : measured;
  return base.map((buckets, index) =>
    buckets.map((tuning) => withTiles(tuning, attentionKernels[index]?.id ?? '', settings)),
  );
}

/** As the native side reads it: [kernels, buckets, parameters]. */
export function attentionTable(tunings: AttentionTunings): Int32Array {
  return Int32Array.from(tunings.flatMap((buckets) => buckets.flatMap(attentionNumbers)));
}

/** A tuning as the native side reads it. */
export const attentionNumbers = (tuning: AttentionTuning): number[] =>
  attentionParameters.map((parameter) => tuning[parameter]);
