/**
 * What attention's parameters are worth: a layer's attention under each of them, in random turns, on the shapes that agents
 * have; by the microbenchmark that a worker runs when it starts (native/attention_timing.h), on a cache that no processor
 * keeps near. Sizes of splits beside them, which are a path's setting.
 */
import {
  type AttentionTuning,
  attentionNumbers,
  priorAttentionTuning,
} from '@variator/kernels/attention-dispatch';
import { attentionVariants } from '@variator/kernels/catalogue';
import { loadModel } from '@variator/kernels/model';
import { loadNative } from '@variator/kernels/native';
import { benchModel } from '../bench-model.ts';
import type { Figure } from '../figure.ts';

const SAMPLE_COUNT = 15;
const LIMIT_MS = 4000;
const THREAD_COUNT = 2;
/** Sequences, rows of each, tokens of context before them. */
const shapes: readonly (readonly [number, number, number])[] = [
  [16, 1, 1899],
  [1, 1, 7900],
  [1, 64, 1836],
  [1, 64, 7900],
];
const changes: readonly Partial<AttentionTuning>[] = [
  {},
  { prefetchBlocks: 0 },
  { prefetchBlocks: 2 },
  { prefetchBlocks: 4 },
  { pairsAtOnce: 2 },
  { pairsAtOnce: 4 },
  { groupsPerSplit: 4 },
  { groupsPerSplit: 12 },
  { leastUnitsPerThread: 0 },
  { leastUnitsPerThread: 32 },
];
const splitSizes = [128, 512, 2048];

export async function attentionTunings(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const model = await loadModel(path);
  const native = loadNative();
  const handle = native.openModel(model.shape, model.tensors, THREAD_COUNT);
  const figures: Figure[] = [];
  for (const attention of attentionVariants.filter((id) => id !== 'attention.reference')) {
    const prior = priorAttentionTuning(attention);
    for (const splitTokens of splitSizes) {
      const own = splitTokens === 512 ? changes : [{}];
      for (const shape of shapes) {
        const { usPerLayer, sampleCounts } = await native.timeAttention(
          handle,
          attention,
          splitTokens,
          THREAD_COUNT,
          Int32Array.from(shape),
          Int32Array.from(own.flatMap((change) => attentionNumbers({ ...prior, ...change }))),
          SAMPLE_COUNT,
          LIMIT_MS,
        );
        const [sequenceCount, rowCount, contextLength] = shape;
        const where = `${label}, ${attention}, ${sequenceCount} x ${rowCount} behind ${contextLength}`;
        for (const [index, change] of own.entries()) {
          const us = usPerLayer[index] ?? Number.NaN;
          const words = Object.entries(change).map(([name, value]) => `${name} ${value}`);
          figures.push({
            figure: `${where}: ${[`splits of ${splitTokens}`, ...words].join(', ')}`,
            goal: '',
            measured: `${us.toFixed(0)} us a layer`,
            interval: `${(us / (usPerLayer[0] ?? Number.NaN)).toFixed(3)} of the usual, ${sampleCounts[index]} samples`,
            isMet: null,
          });
        }
      }
    }
  }
  native.closeModel(handle);
  return figures;
}
