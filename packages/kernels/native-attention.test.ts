/**
 * The attention variants against the reference, on a model with weights drawn anew: contexts of several splits, odd block
 * sizes, windows; and each against itself, to the bit, whatever the chunks, the threads and the sequences beside it.
 */
import { expect, test } from 'vitest';
import { type AttentionShape, attentionModel } from './attention-model.fixture.ts';
import type { AttentionVariantId } from './catalogue.ts';
import { readGolden } from './golden-files.fixture.ts';
import { loadModel } from './model/load-model.ts';
import type { LoadedModel } from './model/loaded-model.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const linear = 'linear.reference';

const shapes: Readonly<Record<string, AttentionShape & { blockSize: number }>> = {
  'three heads a KV head': {
    headCount: 6,
    kvHeadCount: 2,
    headSize: 64,
    windowTokens: [0, 0],
    blockSize: 16,
  },
  'eight heads a KV head': {
    headCount: 8,
    kvHeadCount: 1,
    headSize: 32,
    windowTokens: [0, 0],
    blockSize: 32,
  },
  'odd sizes': { headCount: 3, kvHeadCount: 3, headSize: 18, windowTokens: [0, 0], blockSize: 5 },
  'one window of two': { headCount: 4, kvHeadCount: 2, headSize: 80, windowTokens: [0, 300], blockSize: 48 },
};
/** Of the largest logit. */
const tolerances: Readonly<Record<string, number>> = {
  'attention.float32': 1e-4,
  'attention.bf16': 0.03,
  'attention.int8': 0.12,
};
const prompt = Array.from({ length: 1300 }, (_, index) => (index * index * 31 + 7 * index + 5) % 211);

async function open(model: LoadedModel, attention: AttentionVariantId, blockSize: number, sequenceCount = 1) {
  const driver = new StepDriver(native, model, {
    sequenceCount,
    tokensPerSequence: prompt.length + 16,
    threadCount: 2,
    blockSize,
    attention,
  });
  await driver.prepare(linear);
  return driver;
}

/** Logits behind the prompt. */
async function logitsOf(
  driver: StepDriver,
  chunkSize: number,
  threadCount = 2,
  splitTokens = 512,
): Promise<Float32Array> {
  driver.rewind(0, 0);
  const settings = { linear, chunkSize, threadCount, splitTokens, isLogitsWanted: true } as const;
  const { logits } = await driver.generate([prompt], 1, settings);
  return logits[0] ?? new Float32Array();
}

function difference(a: Float32Array, b: Float32Array): number {
  const most = Math.max(...b.map(Math.abs));
  return Math.max(...b.map((value, index) => Math.abs(value - (a[index] ?? Number.NaN)))) / most;
}

for (const [name, shape] of Object.entries(shapes)) {
  test.each(Object.keys(tolerances))(`${name}: %s is near the reference, and always the same`, async (id) => {
    const attention = id as AttentionVariantId;
    const { model, close } = attentionModel(shape, 11);
    const reference = await open(model, 'attention.reference', shape.blockSize);
    const expected = await logitsOf(reference, 400);
    reference.close();
    const driver = await open(model, attention, shape.blockSize, 3);
    const whole = await logitsOf(driver, prompt.length);
    expect(difference(whole, expected)).toBeLessThan(tolerances[id] ?? 0);
    for (const [chunkSize, threadCount] of [
      [400, 1],
      [37, 2],
      [511, 2],
    ] as const) {
      expect(await logitsOf(driver, chunkSize, threadCount), `chunks of ${chunkSize}`).toEqual(whole);
    }
    // The last token alone (splits shared out to the threads), and with others beside it.
    const last = [{ sequence: 0, tokenIds: prompt.slice(-1), isSampled: true }];
    driver.rewind(0, prompt.length - 1);
    const alone = await driver.step(last, { linear, isLogitsWanted: true });
    expect(alone.logits).toEqual(whole);
    driver.rewind(0, prompt.length - 1);
    const beside = [
      { sequence: 1, tokenIds: prompt.slice(0, 90), isSampled: true },
      ...last,
      { sequence: 2, tokenIds: prompt.slice(5, 6), isSampled: true },
    ];
    const crowd = await driver.step(beside, { linear, isLogitsWanted: true });
    expect(crowd.logits?.slice(whole.length, 2 * whole.length)).toEqual(whole);
    driver.close();
    close();
  });
}

test.each(Object.keys(tolerances))(
  '%s by splits of any size: near the reference, its own bits by each size, the same whatever is beside it',
  async (id) => {
    const shape = { headCount: 6, kvHeadCount: 2, headSize: 18, windowTokens: [0, 300] };
    const { model, close } = attentionModel(shape, 15);
    const reference = await open(model, 'attention.reference', 16);
    const expected = await logitsOf(reference, 400);
    reference.close();
    const driver = await open(model, id as AttentionVariantId, 5);
    const answers: string[] = [];
    for (const splitTokens of [128, 256, 512, 1024, 2048]) {
      const whole = await logitsOf(driver, prompt.length, 2, splitTokens);
      expect(difference(whole, expected), `splits of ${splitTokens}`).toBeLessThan(tolerances[id] ?? 0);
      expect(await logitsOf(driver, 211, 1, splitTokens)).toEqual(whole);
      driver.rewind(0, prompt.length - 1);
      const last = { sequence: 0, tokenIds: prompt.slice(-1), isSampled: true };
      const { logits } = await driver.step([last], { linear, splitTokens, isLogitsWanted: true });
      expect(logits).toEqual(whole);
      answers.push(whole.join());
    }
    // One split is as good as another where it holds the whole context.
    expect(new Set(answers).size).toBe(5);
    driver.close();
    close();
  },
);

test('a size of splits that is no power of two, or beyond its range, is refused by name', async () => {
  const shape = { headCount: 2, kvHeadCount: 1, headSize: 16, windowTokens: [0] };
  const { model, close } = attentionModel(shape, 16);
  const driver = await open(model, 'attention.bf16', 16);
  const step = (splitTokens: number) =>
    driver.step([{ sequence: 0, tokenIds: [1], isSampled: true }], { linear, splitTokens });
  await expect(step(384)).rejects.toThrow('splitTokens: must be a power of two');
  await expect(step(64)).rejects.toThrow(/^splitTokens/);
  await expect(step(4096)).rejects.toThrow(/^splitTokens/);
  driver.close();
  close();
});

test.each(Object.keys(tolerances))('%s gives the same bits by every instruction set', async (id) => {
  const shape = { headCount: 6, kvHeadCount: 2, headSize: 18, windowTokens: [0, 40], blockSize: 5 };
  const { model, close } = attentionModel(shape, 14);
  const answers: Float32Array[] = [];
  try {
    for (const isa of ['all', 'avx512', 'avx2', 'generic'] as const) {
      native.limitIsa(isa);
      const driver = await open(model, id as AttentionVariantId, 5);
      const chunk = { sequence: 0, tokenIds: prompt.slice(0, 90), isSampled: true };
      answers.push(
        (await driver.step([chunk], { linear, isLogitsWanted: true })).logits ?? new Float32Array(),
      );
      driver.close();
    }
  } finally {
    native.limitIsa('all');
  }
  for (const own of answers) expect(own).toEqual(answers[0]);
  close();
});

test('a cache that changes its format keeps its sequences, rounded', async () => {
  const shape = { headCount: 6, kvHeadCount: 2, headSize: 64, windowTokens: [0, 0], blockSize: 16 };
  const { model, close } = attentionModel(shape, 12);
  const driver = await open(model, 'attention.float32', 16, 2);
  await driver.step([{ sequence: 0, tokenIds: prompt.slice(0, 700), isSampled: false }], { linear });
  await driver.step([{ sequence: 1, tokenIds: prompt.slice(0, 300), isSampled: false }], { linear });
  const next = async () => {
    driver.rewind(0, 700);
    driver.rewind(1, 300);
    const chunks = [0, 1].map((sequence) => ({ sequence, tokenIds: [9], isSampled: true }));
    return (await driver.step(chunks, { linear, isLogitsWanted: true })).logits ?? new Float32Array();
  };
  const before = await next();
  await driver.attendBy('attention.bf16');
  const halves = await next();
  expect(difference(halves, before)).toBeLessThan(0.03);
  expect(halves).not.toEqual(before);
  // There and back is nothing lost any more.
  await driver.attendBy('attention.float32');
  await driver.attendBy('attention.bf16');
  expect(await next()).toEqual(halves);
  await driver.attendBy('attention.int8');
  expect(difference(await next(), before)).toBeLessThan(0.06);
  await driver.attendBy('attention.reference');
  expect(difference(await next(), before)).toBeLessThan(0.06);
  driver.close();
  close();
});

test('the same memory holds twice the blocks in bf16, and more in int8', async () => {
  const shape = { headCount: 6, kvHeadCount: 2, headSize: 64, windowTokens: [0, 0] };
  const { model, close } = attentionModel(shape, 13);
  const driver = await open(model, 'attention.float32', 16);
  const count = native.kvBlockCount(driver.kvCache, 'float32');
  expect(count).toBe(Math.ceil((prompt.length + 16) / 16));
  expect(native.kvBlockCount(driver.kvCache, 'bf16')).toBe(2 * count);
  expect(native.kvBlockCount(driver.kvCache, 'int8') / count).toBeGreaterThan(3.5);
  const convert = (blockIds: number[]) =>
    native.convertKvCache(driver.model, driver.kvCache, 'bf16', Int32Array.from(blockIds));
  await expect(convert([count])).rejects.toThrow(/^blockIds/);
  await expect(convert([3, 3])).rejects.toThrow(/must ascend/);
  driver.close();
  close();
});

const smollm2 = readGolden('smollm2');
/** Golden tokens of 320, teacher-forced, whose greedy choice stays; the reference itself has 310. */
test.skipIf(smollm2 === null).each([
  ['attention.float32', 310],
  ['attention.bf16', 308],
  ['attention.int8', 304],
] as const)(
  'smollm2 by %s, linear layers in float32: at least %i of 320 golden tokens',
  async (attention, least) => {
    if (smollm2 === null) return;
    const { cases } = smollm2;
    const driver = new StepDriver(native, await loadModel(smollm2.modelPath), {
      sequenceCount: cases.length,
      tokensPerSequence: 768,
      threadCount: 2,
      blockSize: 16,
      attention,
    });
    await driver.prepare(linear);
    const forced = cases.map(({ greedy }) => greedy);
    const prompts = cases.map(({ prompt }) => prompt);
    const { tokens } = await driver.generate(prompts, 48, { linear, chunkSize: 64, forced });
    const agreed = cases.flatMap(({ greedy }, i) => greedy.filter((token, j) => token === tokens[i]?.[j]));
    console.log(`${attention}: ${agreed.length} of 320 golden tokens`);
    expect(agreed.length).toBeGreaterThanOrEqual(least);
    driver.close();
  },
);
