/** A model's steps under dispatch tables: the same bits under any, and the microbenchmark that chooses them. */
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { type AttentionVariantId, type LinearVariantId, linearVariantsFor, variantOf } from './catalogue.ts';
import { rowBuckets } from './linear-dispatch.ts';
import { loadModel } from './model/load-model.ts';
import { loadNative, NativeError } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const story = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
const model = await loadModel(story);
const driver = new StepDriver(native, model, {
  sequenceCount: 2,
  tokensPerSequence: 96,
  threadCount: 2,
  blockSize: 16,
});
afterAll(() => driver.close());
const fastest = linearVariantsFor(native.probeMachine(1).features)[0] ?? 'linear.reference';
const sizes = native.linearShapes(driver.model);
const shapeCount = sizes.length / 2;
const tokenIdsOf = (length: number): number[] =>
  Array.from({ length }, (_, i) => (31 * i + 5) % model.shape.vocabularySize);

test('the shapes are the model’s distinct matrices, the LM head’s among them', () => {
  const { hiddenSize, intermediateSize, vocabularySize } = model.shape;
  const pairs = Array.from({ length: shapeCount }, (_, i) => `${sizes[2 * i]}x${sizes[2 * i + 1]}`);
  expect(new Set(pairs).size).toBe(shapeCount);
  expect(pairs).toContain(`${hiddenSize}x${intermediateSize}`);
  expect(pairs.at(-1)).toBe(`${vocabularySize}x${hiddenSize}`);
});

test('no table changes a bit, whatever it holds', async () => {
  let state = 7;
  const random = (most: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    return state % (most + 1);
  };
  const tokenIds = tokenIdsOf(70);
  const variants = linearVariantsFor(native.probeMachine(1).features).filter(
    (id) => variantOf(id).kind !== 'float32',
  );
  for (const linear of variants.filter((id) => !id.includes('generic'))) {
    await driver.prepare(linear);
    const logitsUnder = async (tunings?: Int32Array) => {
      const settings = {
        linear,
        chunkSize: 64,
        isLogitsWanted: true,
        ...(tunings === undefined ? {} : { tunings }),
      };
      driver.rewind(0, 0);
      driver.rewind(1, 0);
      const { logits } = await driver.generate([tokenIds, tokenIds.slice(0, 3)], 2, settings);
      return logits;
    };
    const expected = await logitsUnder();
    for (let trial = 0; trial < 3; trial += 1) {
      const numbers = Array.from({ length: shapeCount * rowBuckets.length }, () => [
        1 + random(5),
        random(16),
        1 + random(95),
        1 + random(31),
      ]);
      expect(await logitsUnder(Int32Array.from(numbers.flat())), linear).toEqual(expected);
    }
  }
});

test('a table of another size, or beyond the ranges, is refused by name', async () => {
  await driver.prepare(fastest);
  const step = (tunings: Int32Array) =>
    driver.step([{ sequence: 0, tokenIds: [1, 2, 3], isSampled: true }], { linear: fastest, tunings });
  await expect(step(Int32Array.of(6, 4, 24, 1))).rejects.toThrow(/^tunings: must be \[/);
  const table = new Int32Array(shapeCount * rowBuckets.length * 4).fill(1);
  await expect(step(table.subarray(1))).rejects.toThrow('tunings: must be [count, 4]');
  table[6] = 97;
  await expect(step(table)).rejects.toThrow('tunings: entry 1 is out of its range');
});

test('the microbenchmark gives a time for each shape and tuning, and says what it cannot do', async () => {
  const handle = native.openModel(model.shape, model.tensors, 2);
  const time = (changes: { linear?: LinearVariantId; tunings?: Int32Array; limitMs?: number }) =>
    native.timeLinear(
      handle,
      changes.linear ?? fastest,
      2,
      4,
      changes.tunings ?? Int32Array.of(6, 4, 24, 1, 1, 0, 1, 1),
      3,
      changes.limitMs ?? 1000,
    );
  await expect(time({})).rejects.toThrow('linear: the variant is not prepared');
  await native.prepareLinear(handle, fastest, null, null);
  const { usPerPanel, sampleCounts } = await time({});
  expect(usPerPanel.length).toBe(2 * shapeCount);
  expect([...usPerPanel].every((us) => us > 0 && Number.isFinite(us))).toBe(true);
  // Three walks are as many samples of the LM head, over two tunings.
  expect([...sampleCounts].every((count) => count >= 1)).toBe(true);
  const cut = await time({ limitMs: 0 });
  expect([...cut.sampleCounts].reduce((sum, count) => sum + count, 0)).toBe(1);
  expect([...cut.usPerPanel].filter(Number.isNaN).length).toBe(2 * shapeCount - 1);
  await expect(time({ tunings: new Int32Array() })).rejects.toThrow('tunings: must not be empty');
  await expect(time({ tunings: Int32Array.of(7, 4, 24, 1) })).rejects.toThrow(NativeError);
  await expect(time({ linear: 'linear.reference' })).rejects.toThrow('the reference has no tunings');
  await expect(time({ limitMs: Number.NaN })).rejects.toThrow('limitMs: must be from 0');
  native.closeModel(handle);
});

test('no attention table changes a bit of a step, and one of another size is refused by name', async () => {
  await driver.prepare(fastest);
  await driver.attendBy('attention.bf16');
  const prompts = [tokenIdsOf(70), tokenIdsOf(3)];
  const logitsUnder = async (attentionTunings?: Int32Array) => {
    driver.rewind(0, 0);
    driver.rewind(1, 0);
    const settings = { linear: fastest, chunkSize: 64, isLogitsWanted: true };
    const own = attentionTunings === undefined ? {} : { attentionTunings };
    return (await driver.generate(prompts, 3, { ...settings, ...own })).logits;
  };
  const expected = await logitsUnder();
  const table = (...tuning: number[]) => Int32Array.from(Array(8).fill(tuning).flat());
  for (const tuning of [
    [1, 0, 1, 0],
    [4, 8, 16, 64],
    [5, 2, 3, 4],
  ]) {
    expect(await logitsUnder(table(...tuning)), tuning.join()).toEqual(expected);
  }
  await expect(logitsUnder(table(6, 1, 1, 4).subarray(4))).rejects.toThrow(
    'attentionTunings: must be [8, 4]',
  );
  await expect(logitsUnder(table(6, 1, 0, 4))).rejects.toThrow(
    'attentionTunings: entry 0 is out of its range',
  );
  await driver.attendBy('attention.reference');
});

test('the microbenchmark of attention gives a time for each shape and tuning, and says what it cannot do', async () => {
  const handle = native.openModel(model.shape, model.tensors, 2);
  const time = (changes: { attention?: AttentionVariantId; shapes?: number[]; limitMs?: number }) =>
    native.timeAttention(
      handle,
      changes.attention ?? 'attention.int8',
      512,
      2,
      Int32Array.from(changes.shapes ?? [3, 1, 100, 1, 32, 200]),
      Int32Array.of(6, 1, 1, 4, 4, 2, 4, 64),
      3,
      changes.limitMs ?? 20_000,
    );
  const { usPerLayer, sampleCounts } = await time({});
  expect(usPerLayer.length).toBe(4);
  expect([...usPerLayer].every((us) => us > 0 && Number.isFinite(us))).toBe(true);
  expect([...sampleCounts]).toEqual([3, 3, 3, 3]);
  const cut = await time({ limitMs: 0 });
  expect([...cut.sampleCounts]).toEqual([0, 0, 0, 0]);
  expect([...cut.usPerLayer].every(Number.isNaN)).toBe(true);
  await expect(time({ attention: 'attention.reference' })).rejects.toThrow('the reference has no tunings');
  await expect(time({ shapes: [1, 1] })).rejects.toThrow(/^shapes: must be/);
  await expect(time({ shapes: [1, 1, 1e6] })).rejects.toThrow('shapes: entry 0 is out of its range');
  native.closeModel(handle);
});
