import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { candidateAttentionTunings, priorAttentionTuning } from '@variator/kernels/attention-dispatch';
import type { ModelHandle, NativeKernels } from '@variator/kernels/native';
import { afterAll, expect, test } from 'vitest';
import { type AttentionTuningsOf, keptAttentionTunings, measureAttention } from './measured-attention.ts';
import { measureNow } from './measuring.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-attention-'));
afterAll(() => rmSync(folder, { recursive: true }));

/** A machine on which the last candidate is the quickest, but for the longest context too little time is left. */
function machine() {
  const calls: { shapes: number[]; limitMs: number }[] = [];
  const native: Pick<NativeKernels, 'timeAttention'> = {
    async timeAttention(_model, _attention, _splits, _threads, shapes, tunings, _samples, limitMs) {
      calls.push({ shapes: [...shapes], limitMs });
      const [shapeCount, count] = [shapes.length / 3, tunings.length / 4];
      const all = Array.from({ length: shapeCount * count }, (_, index) => index);
      return {
        usPerLayer: Float32Array.from(all, (index) => (index % count === count - 1 ? 1 : 2)),
        sampleCounts: Int32Array.from(all, (index) => (index >= (shapeCount - 1) * count ? 4 : 9)),
      };
    },
  };
  return { native, calls };
}
const of = (
  native: AttentionTuningsOf['native'],
  changes: Partial<AttentionTuningsOf> = {},
): AttentionTuningsOf => ({
  native,
  handle: {} as ModelHandle,
  attention: 'attention.bf16',
  splitTokens: 512,
  threadCount: 2,
  headsPerKvHead: 3,
  kvBytes: 768,
  maxModelLenTokens: 8192,
  file: join(folder, 'a.tunings'),
  key: 'this machine',
  ...changes,
});

const measured = (own: AttentionTuningsOf) =>
  measureNow(measureAttention(own, { limitMs: 500, mostCallMs: 500 }));

test('what is quickest is chosen by kernel and context, kept, and found again for exactly this', async () => {
  const { native, calls } = machine();
  expect(keptAttentionTunings(of(native))).toBeNull();
  const tunings = await measured(of(native));
  // 8192 tokens are the model's end: nothing stands for the last bucket.
  expect(calls.map(({ shapes }) => shapes)).toEqual([
    [16, 1, 255, 8, 1, 1023, 2, 1, 4095],
    [1, 32, 224, 1, 32, 992, 1, 32, 4064],
  ]);
  expect(calls[0]?.limitMs).toBeLessThanOrEqual(250);
  expect(calls[1]?.limitMs).toBeLessThanOrEqual(500);
  const prior = priorAttentionTuning('attention.bf16');
  const quickest = (['decode', 'prefill'] as const).map((id) =>
    candidateAttentionTunings('attention.bf16', id, 3).at(-1),
  );
  expect(tunings).toEqual(quickest.map((one) => [one, one, prior, prior]));
  expect(keptAttentionTunings(of(native))).toEqual(tunings);
  for (const changes of [
    { key: 'another machine' },
    { threadCount: 1 },
    { splitTokens: 256 },
    { attention: 'attention.int8' },
    { file: null },
  ] as const) {
    expect(keptAttentionTunings(of(native, changes))).toBeNull();
  }
});

test('a file of linear layers, or a broken one, is no file of attention', async () => {
  const { native } = machine();
  const file = join(folder, 'b.tunings');
  writeFileSync(file, JSON.stringify({ key: 'this machine attention.bf16 512 2', tunings: [[]] }));
  expect(keptAttentionTunings(of(native, { file }))).toBeNull();
  await measured(of(native, { file }));
  expect(keptAttentionTunings(of(native, { file }))).not.toBeNull();
});

test('a model whose contexts are shorter than any bucket is not measured', async () => {
  const { native, calls } = machine();
  const tunings = await measured(of(native, { maxModelLenTokens: 200, file: null }));
  expect(calls).toEqual([]);
  const prior = priorAttentionTuning('attention.bf16');
  expect(tunings).toEqual([Array(4).fill(prior), Array(4).fill(prior)]);
});
