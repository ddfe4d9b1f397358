import { expect, test } from 'vitest';
import {
  type AttentionTuning,
  attentionTable,
  attentionTuningsOfTiles,
  candidateAttentionTunings,
  contextBuckets,
  priorAttentionTuning,
  priorAttentionTunings,
  timedShapes,
} from './attention-dispatch.ts';
import { attentionVariants } from './catalogue.ts';
import { attentionKernels, attentionParameters, linearKernels } from './kernel-parameters.ts';
import { readTiles } from './tiles.ts';

const split = attentionVariants.filter((id) => id !== 'attention.reference');
const isInRange = (tuning: AttentionTuning): boolean =>
  attentionKernels.every(({ parameters }) =>
    attentionParameters.every(
      (name) => tuning[name] >= parameters[name].least && tuning[name] <= parameters[name].most,
    ),
  );

test('priors and candidates are within the catalogue’s ranges, and the prior is the first candidate', () => {
  for (const attention of split) {
    for (const { id } of attentionKernels) {
      for (const headsPerKvHead of [1, 3, 8]) {
        const candidates = candidateAttentionTunings(attention, id, headsPerKvHead);
        expect(candidates.every(isInRange)).toBe(true);
        expect(candidates[0]).toEqual(priorAttentionTuning(attention));
        expect(new Set(candidates.map((one) => JSON.stringify(one))).size).toBe(candidates.length);
      }
    }
  }
});

test('a row with one head a KV head is not tried in smaller groups than it has pairs', () => {
  const pairs = (heads: number) =>
    candidateAttentionTunings('attention.bf16', 'decode', heads).map(({ pairsAtOnce }) => pairsAtOnce);
  expect(new Set(pairs(1))).toEqual(new Set([6]));
  expect(new Set(pairs(3))).toEqual(new Set([6, 2]));
  expect(new Set(pairs(8))).toEqual(new Set([6, 2, 4]));
});

test('what is timed ends at the buckets’ ends, within the model and the memory', () => {
  for (const { id } of attentionKernels) {
    const all = timedShapes(id, 1e6);
    expect(all.map(({ rowCount, contextLength }) => rowCount + contextLength)).toEqual([...contextBuckets]);
    const few = timedShapes(id, 5000);
    expect(few.length).toBe(3);
    for (const { sequenceCount, rowCount, contextLength } of few) {
      expect(sequenceCount * (rowCount + contextLength)).toBeLessThanOrEqual(5000);
      expect(sequenceCount).toBeGreaterThanOrEqual(1);
    }
    expect(timedShapes(id, 100)).toEqual([]);
  }
});

test('a path’s settings stand over what was measured, for the kernel they name alone', () => {
  const measured = priorAttentionTunings('attention.bf16').map((buckets) =>
    buckets.map((one) => ({ ...one, prefetchBlocks: 3 })),
  );
  const values = (tiles: string) =>
    attentionTuningsOfTiles(tiles, 'attention.bf16', measured).map((buckets) =>
      buckets.map(({ prefetchBlocks }) => prefetchBlocks),
    );
  expect(values('measured')).toEqual([Array(4).fill(3), Array(4).fill(3)]);
  expect(values('prior')).toEqual([Array(4).fill(1), Array(4).fill(1)]);
  expect(values('decode.prefetchBlocks=8+full.slabRows=48')).toEqual([Array(4).fill(8), Array(4).fill(3)]);
  expect(attentionTuningsOfTiles('measured', 'attention.int8', null)).toEqual(
    priorAttentionTunings('attention.int8'),
  );
  expect(() => attentionTuningsOfTiles('nonsense', 'attention.bf16', null)).toThrow(/^tiles must be/);
});

test('tiles name kernels of both operations, which share no id', () => {
  const ids = [...linearKernels, ...attentionKernels].map(({ id }) => id);
  expect(new Set(ids).size).toBe(ids.length);
  expect(readTiles('prefill.groupsPerSplit=8+gemv.prefetchGroups=2')).toEqual([
    { kernel: 'prefill', parameter: 'groupsPerSplit', value: 8 },
    { kernel: 'gemv', parameter: 'prefetchGroups', value: 2 },
  ]);
  expect(readTiles('prefill.groupsPerSplit=17')).toBe(
    'tiles: prefill.groupsPerSplit must be a whole number from 1 to 16, not 17.',
  );
  expect(readTiles('decode.slabRows=8')).toMatch(/^tiles must be measured, prior, or settings such as/);
});

test('the table lies by kernel, bucket and parameter', () => {
  const tunings = priorAttentionTunings('attention.bf16').map((buckets, kernel) =>
    buckets.map((one, bucket) => ({ ...one, prefetchBlocks: 4 * kernel + bucket })),
  );
  const table = attentionTable(tunings);
  expect(table.length).toBe(attentionKernels.length * contextBuckets.length * attentionParameters.length);
  expect([...table].filter((_, index) => index % 4 === 1)).toEqual([0, 1, 2, 3, 4, 5, 6, 7]);
});
