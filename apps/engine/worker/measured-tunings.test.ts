import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { candidateTunings, priorTuning, rowBuckets } from '@variator/kernels/linear-dispatch';
import type { ModelHandle, NativeKernels } from '@variator/kernels/native';
import { afterAll, expect, test } from 'vitest';
import { keptTunings, measureTunings, type TuningsOf } from './measured-tunings.ts';
import { measureNow } from './measuring.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-tunings-'));
afterAll(() => rmSync(folder, { recursive: true }));
const shape = [576, 576] as const;

/** A machine on which the last candidate is the quickest for up to 32 rows, and beyond there is too little time. */
function machine() {
  const calls: number[] = [];
  const native: Pick<NativeKernels, 'linearShapes' | 'timeLinear'> = {
    linearShapes: () => Int32Array.from(shape),
    async timeLinear(_model, _linear, _threads, rowCount, tunings) {
      calls.push(rowCount);
      const count = tunings.length / 4;
      const us = Float32Array.from({ length: count }, (_, index) => (index === count - 1 ? 1 : 2));
      return { usPerPanel: us, sampleCounts: new Int32Array(count).fill(rowCount <= 32 ? 9 : 4) };
    },
  };
  return { native, calls };
}
const of = (native: TuningsOf['native'], changes: Partial<TuningsOf> = {}): TuningsOf => ({
  native,
  handle: {} as ModelHandle,
  linear: 'linear.int8-generic',
  threadCount: 2,
  file: join(folder, 'a.tunings'),
  key: 'this machine',
  ...changes,
});

const measured = (own: TuningsOf) => measureNow(measureTunings(own, { limitMs: 2000, mostCallMs: 2000 }));

test('what is quickest is chosen by row count, kept, and found again for exactly this machine', async () => {
  const { native, calls } = machine();
  expect(keptTunings(of(native))).toBeNull();
  const tunings = await measured(of(native));
  expect(calls).toEqual([...rowBuckets]);
  expect(tunings).toEqual([
    rowBuckets.map((rows) =>
      rows <= 32 ? candidateTunings([shape], rows).at(-1) : priorTuning(shape, rows),
    ),
  ]);
  expect(keptTunings(of(native))).toEqual(tunings);
  expect(keptTunings(of(native, { key: 'another machine' }))).toBeNull();
  expect(keptTunings(of(native, { threadCount: 1 }))).toBeNull();
  expect(keptTunings(of(native, { linear: 'linear.int4-generic' }))).toBeNull();
  expect(keptTunings(of(native, { file: null }))).toBeNull();
});

test('a broken file is measured again, and one that cannot be written is no fault', async () => {
  const { native } = machine();
  const file = join(folder, 'b.tunings');
  writeFileSync(file, '{"key":');
  expect(keptTunings(of(native, { file }))).toBeNull();
  const tunings = await measured(of(native, { file }));
  expect(keptTunings(of(native, { file }))).toEqual(tunings);
  expect(await measured(of(native, { file: join(file, 'below-a-file') }))).toEqual(tunings);
});

test('the oldest files go when there are many', async () => {
  const { native } = machine();
  for (let index = 0; index < 70; index += 1) writeFileSync(join(folder, `${index}.tunings`), '{}');
  await measured(of(native, { file: join(folder, 'newest.tunings') }));
  const names = readdirSync(folder);
  expect(names.length).toBe(64);
  expect(names).toContain('newest.tunings');
});

test('a call takes no longer than a step may wait, and steps may run between two', async () => {
  const { native } = machine();
  const limits: number[] = [];
  const timed: TuningsOf['native'] = {
    ...native,
    timeLinear: (...call) => {
      limits.push(call[6]);
      return native.timeLinear(...call);
    },
  };
  const measuring = measureTunings(of(timed, { file: null }), { limitMs: 2000, mostCallMs: 100 });
  for (const [index] of rowBuckets.entries()) {
    expect((await measuring.next()).done).toBe(false);
    expect(limits.length).toBe(index + 1);
  }
  const { done, value } = await measuring.next();
  expect(done).toBe(true);
  expect(value).toEqual(await measured(of(native, { file: null })));
  expect(limits).toEqual(rowBuckets.map(() => 100));
});
