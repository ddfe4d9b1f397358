import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadModel } from './model/load-model.ts';
import type { LoadedModel } from './model/loaded-model.ts';
import { loadNative, type ModelHandle, NativeError, type StepInput } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const modelFolder = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
let loaded: LoadedModel;
let model: ModelHandle;

const goodStep: StepInput = {
  linear: 'linear.reference',
  tunings: null,
  attention: 'attention.reference',
  attentionTunings: null,
  splitTokens: 512,
  threadCount: 1,
  tokenIds: Int32Array.of(1, 2, 3),
  tokenStarts: Int32Array.of(0, 2, 3),
  contextLengths: Int32Array.of(0, 0),
  blockTables: Int32Array.of(0, 1),
  blockTableStride: 1,
  isSampled: Uint8Array.of(1, 0),
  draftCounts: Int32Array.of(0, 0),
  temperatures: Float32Array.of(0, 0),
  topPs: Float32Array.of(1, 1),
  topKs: Int32Array.of(0, 0),
  minPs: Float32Array.of(0, 0),
  seeds: Uint32Array.of(0, 0, 0, 0),
  rules: null,
  scoring: null,
  isLogitsWanted: false,
};

beforeAll(async () => {
  loaded = await loadModel(modelFolder);
  model = native.openModel(loaded.shape, loaded.tensors, 2);
});
afterAll(() => native.closeModel(model));

test('a probe names the machine and its speed', () => {
  const probe = native.probeMachine(2);
  expect(probe.cpuModel).not.toBe('');
  expect(probe.coreCount).toBeGreaterThan(0);
  for (const rate of [probe.readBytesPerSecond, probe.float32FlopsPerSecond, probe.int8OpsPerSecond]) {
    expect(rate).toBeGreaterThan(1e8);
    expect(rate).toBeLessThan(1e15);
  }
});

test('a model whose second layer does not fit is refused, and the process lives', () => {
  const [first, second, ...rest] = loaded.tensors.layers;
  if (first === undefined || second === undefined) throw new Error('the story model has six layers');
  const layers = [first, { ...second, q: { ...second.q, byteLength: 2 } }, ...rest];
  expect(() => native.openModel(loaded.shape, { ...loaded.tensors, layers }, 1)).toThrow(NativeError);
  const ropeInverseFrequencies = loaded.shape.ropeInverseFrequencies.map(() => Number.NaN);
  expect(() => native.openModel({ ...loaded.shape, ropeInverseFrequencies }, loaded.tensors, 1)).toThrow(
    /ropeInverseFrequencies/,
  );
});

test('a good step yields a token where one is sampled and -1 where none is', async () => {
  const kvCache = native.createKvCache(model, 2, 16, 'float32');
  const output = await native.runStep(model, kvCache, goodStep);
  expect(output.sampledTokenIds[0]).toBeGreaterThanOrEqual(0);
  expect(output.sampledTokenIds[1]).toBe(-1);
  expect(output.logits).toBeNull();
  expect(output.deviceMs).toBeGreaterThan(0);
  expect(output.foreignCpuShare).toBeGreaterThanOrEqual(0);
  expect(output.foreignCpuShare).toBeLessThanOrEqual(1);
  native.closeKvCache(kvCache);
});

const brokenSteps: [string, Partial<StepInput>, RegExp][] = [
  [
    'a block that is none',
    { blockTables: Int32Array.of(0, 2) },
    /^blockTables\[1\]: block 2 is not one of 2/,
  ],
  ['a negative block', { blockTables: Int32Array.of(-1, 1) }, /^blockTables\[0\]/],
  ['a token that is none', { tokenIds: Int32Array.of(1, 2, 2048) }, /^tokenIds: 2048 is not one of 2048/],
  ['a sequence without tokens', { tokenStarts: Int32Array.of(0, 3, 3) }, /^tokenStarts\[1\]/],
  ['starts beyond the tokens', { tokenStarts: Int32Array.of(0, 2, 9) }, /^tokenIds: has 3 entries, not 9/],
  ['a table too short', { contextLengths: Int32Array.of(0, 16) }, /^blockTables\[1\]: is too short/],
  ['a position beyond the model', { contextLengths: Int32Array.of(0, 5000) }, /beyond the model's 2048/],
  ['a negative context', { contextLengths: Int32Array.of(-1, 0) }, /^contextLengths\[0\]/],
  ['too many threads', { threadCount: 3 }, /^threadCount: must be from 1 to 2/],
  ['a variant not prepared', { linear: 'linear.int8-generic' }, /not prepared/],
  [
    'an attention variant that is none',
    { attention: 'attention.x' as 'attention.bf16' },
    /no variant attention.x/,
  ],
  ['an attention variant of another format', { attention: 'attention.bf16' }, /^attention: the kvCache/],
  ['a variant that is none', { linear: 'linear.magic' as 'linear.reference' }, /no variant linear.magic/],
  ['a negative temperature', { temperatures: Float32Array.of(-1, 0) }, /^temperatures\[0\]/],
  ['a top-p of zero', { topPs: Float32Array.of(1, 0) }, /^topPs\[1\]/],
  ['too few seeds', { seeds: Uint32Array.of(1) }, /seeds/],
  [
    'another kind of array',
    { tokenIds: Float32Array.of(1) as unknown as Int32Array },
    /^tokenIds: must be an Int32Array/,
  ],
];
test.each(brokenSteps)('a step with %s is refused by name and runs nothing', async (_, change, fault) => {
  const kvCache = native.createKvCache(model, 2, 16, 'float32');
  const broken = native.runStep(model, kvCache, { ...goodStep, ...change });
  await expect(broken).rejects.toThrow(NativeError);
  await expect(broken).rejects.toThrow(fault);
  expect((await native.runStep(model, kvCache, goodStep)).sampledTokenIds[1]).toBe(-1);
  native.closeKvCache(kvCache);
});

test('a second step beside a running one is refused, and the first one settles', async () => {
  const kvCache = native.createKvCache(model, 2, 16, 'float32');
  const first = native.runStep(model, kvCache, goodStep);
  await expect(native.runStep(model, kvCache, goodStep)).rejects.toThrow(/a step is running/);
  await expect(first).resolves.toBeDefined();
  native.closeKvCache(kvCache);
});

test('closed handles and strange ones are refused', async () => {
  const own = native.openModel(loaded.shape, loaded.tensors, 1);
  const kvCache = native.createKvCache(own, 2, 16, 'float32');
  const running = native.runStep(own, kvCache, goodStep);
  native.closeModel(own);
  await expect(running).resolves.toBeDefined();
  await expect(native.runStep(own, kvCache, goodStep)).rejects.toThrow(/^model: is closed/);
  expect(() => native.closeModel(own)).toThrow(NativeError);
  native.closeKvCache(kvCache);
  await expect(native.runStep(model, kvCache, goodStep)).rejects.toThrow(/^kvCache: is closed/);
  expect(() => native.createKvCache({} as ModelHandle, 2, 16, 'float32')).toThrow(/^model: is not a handle/);
  expect(() => native.createKvCache(model, 0, 16, 'float32')).toThrow(/^blockCount/);
});

test('preparing twice packs once', async () => {
  const own = native.openModel(loaded.shape, loaded.tensors, 1);
  const [first, second] = await Promise.all([
    native.prepareLinear(own, 'linear.int8-generic', null, null),
    native.prepareLinear(own, 'linear.int8-generic', null, null),
  ]);
  expect(first.packedBytes).toBeGreaterThan(1e6);
  expect(second.packedBytes).toBe(first.packedBytes);
  expect(second.prepareMs).toBeLessThanOrEqual(first.prepareMs);
  expect(await native.prepareLinear(own, 'linear.reference', null, null)).toEqual({
    prepareMs: 0,
    packedBytes: 0,
    isFromCache: false,
  });
  native.closeModel(own);
});

test('a tensor that does not fit its file or its shape is named', () => {
  const { shape, tensors } = loaded;
  const open = (head: Partial<typeof tensors.head>) => () =>
    native.openModel(shape, { ...tensors, head: { ...tensors.head, ...head } }, 1);
  expect(open({ offset: 9_900_000 })).toThrow(/^head in .*model\.safetensors: ends beyond the file/);
  expect(open({ rows: 7 })).toThrow(/^head in .*: is \[7, 256\], but the shape needs \[2048, 256\]/);
  expect(open({ byteLength: 12 })).toThrow(/has 12 bytes/);
  expect(open({ file: '/nowhere/model.safetensors' })).toThrow(
    /^\/nowhere\/model\.safetensors: cannot be opened/,
  );
  const folder = mkdtempSync(join(tmpdir(), 'variator-native-'));
  writeFileSync(join(folder, 'empty'), '');
  expect(open({ file: join(folder, 'empty') })).toThrow(NativeError);
  rmSync(folder, { recursive: true });
});

test('a seeded draw depends on seed and position alone, and settings narrow it', async () => {
  const driver = new StepDriver(native, loaded, {
    sequenceCount: 3,
    tokensPerSequence: 64,
    threadCount: 2,
    blockSize: 16,
  });
  const settings = { linear: 'linear.reference', isLogitsWanted: true } as const;
  const draw = async (sampling: object) => {
    for (const sequence of [0, 1, 2]) driver.rewind(sequence, 0);
    const chunks = [0, 1, 2].map((sequence) => ({
      sequence,
      tokenIds: sequence === 1 ? [5] : [1, 2, 3],
      isSampled: true,
      ...sampling,
    }));
    const { sampledTokenIds, logits } = await driver.step(chunks, settings);
    return { tokens: [...sampledTokenIds], logits: (logits ?? new Float32Array()).slice(0, 2048) };
  };
  const counts = new Map<number, number>();
  const { tokens: greedy, logits } = await draw({ temperature: 0 });
  expect(logits[greedy[0] ?? 0]).toBe(Math.max(...logits));
  const ranked = [...logits.keys()].sort((a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b);
  const total = 150;
  for (let seed = 0; seed < total; seed++) {
    const { tokens } = await draw({ temperature: 0.8, seed });
    expect(tokens[2]).toBe(tokens[0]);
    const token = tokens[0] ?? -1;
    counts.set(token, (counts.get(token) ?? 0) + 1);
    const few = await draw({ temperature: 1.5, topK: 3, seed: seed * 2 ** 40 });
    expect(ranked.slice(0, 3)).toContain(few.tokens[0]);
  }
  expect((await draw({ temperature: 2, topP: 1e-6, seed: 3 })).tokens).toEqual(greedy);
  expect((await draw({ temperature: 2, topK: 1, seed: 3 })).tokens).toEqual(greedy);
  const most = logits[ranked[0] ?? 0] ?? 0;
  const weights = logits.map((logit) => Math.exp((logit - most) / 0.8));
  const sum = weights.reduce((a, b) => a + b, 0);
  const best = ranked[0] ?? 0;
  const expected = (weights[best] ?? 0) / sum;
  const deviation = Math.sqrt((expected * (1 - expected)) / total);
  expect(Math.abs((counts.get(best) ?? 0) / total - expected)).toBeLessThan(4 * deviation + 0.01);
  driver.close();
});
