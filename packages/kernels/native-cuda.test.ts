/** The border to the CUDA library, over the emulated device: what breaks its contract is refused by name and runs nothing. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, describe, expect, test, vi } from 'vitest';
import { buildCuda } from './build-cuda.mjs';
import { loadModel } from './model/load-model.ts';
import type { LoadedModel } from './model/loaded-model.ts';
import { NativeError, type StepBatch } from './native.ts';
import {
  type CudaKernels,
  type CudaKvCacheHandle,
  type CudaModelHandle,
  type CudaPath,
  loadCuda,
} from './native-cuda.ts';

/** The emulator is slow, and slower beside other work: what is asked is whether, never how soon. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const built = await buildCuda().catch((error: Error) => {
  console.warn(`SKIPPED: the border to the CUDA library (${error.message})`);
  return null;
});
const modelFolder = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
const limits = { mostTokens: 8, mostSequences: 3, mostHeadRows: 4, mostBlocksPerSequence: 2 };
const path: CudaPath = {
  linear: 0,
  weights: 0,
  kvFormat: 0,
  splitTokens: 64,
  mmaTile: 0,
  gemvRowsPerWarp: 1,
  gemvLoads: 4,
  usesGraphs: false,
  decode: 0,
};
const goodBatch: StepBatch = {
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

describe.skipIf(built === null)('the border to the CUDA library', () => {
  let native: CudaKernels;
  let loaded: LoadedModel;
  let model: CudaModelHandle;
  let kvCache: CudaKvCacheHandle;
  const run = (batch: Partial<StepBatch> = {}, own: Partial<CudaPath> = {}) =>
    native.runStep(model, kvCache, { ...path, ...own }, { ...goodBatch, ...batch });

  beforeAll(async () => {
    native = loadCuda(built?.library ?? '', 0);
    loaded = await loadModel(modelFolder);
    const opened = await native.openModel(loaded.shape, loaded.tensors, limits);
    model = opened.model;
    expect(opened.weightBytes).toBeGreaterThan(9e6);
    const made = await native.createKvCache(model, 4, 16, 'bf16');
    kvCache = made.kvCache;
    const { layerCount, kvHeadCount, headSize } = loaded.shape;
    expect(made.blockBytes).toBe(16 * 2 * 2 * layerCount * kvHeadCount * headSize);
    await native.prepare(model, kvCache, path);
  }, 120_000);
  afterAll(() => {
    native?.closeKvCache(kvCache);
    native?.closeModel(model);
  });

  test('the device says that it is emulated, and its driver nothing', async () => {
    expect(native.device()).toMatchObject({ isEmulated: true, computeCapability: 90 });
    const told = await native.telemetry();
    expect(Object.keys(told)).toEqual([
      'smClockMhz',
      'memoryClockMhz',
      'powerWatts',
      'energyJoules',
      'temperatureCelsius',
      'memoryUsedBytes',
    ]);
    expect(told.energyJoules).toBeNull();
  });

  test('a good step yields a token where one is sampled and -1 where none is', async () => {
    const output = await run({ isLogitsWanted: true });
    const { vocabularySize } = loaded.shape;
    expect(output.logits).toHaveLength(2 * vocabularySize);
    const first = (output.logits ?? new Float32Array()).subarray(0, vocabularySize);
    expect(output.sampledTokenIds[0]).toBe(first.indexOf(Math.max(...first)));
    expect(output.sampledTokenIds[1]).toBe(-1);
    expect(output.deviceMs).toBeGreaterThan(0);
    expect(output.launchCount).toBeGreaterThan(0);
    expect(output).toMatchObject({ isGraph: false, logprobs: null });
  });

  test.each<[string, Partial<StepBatch>, RegExp]>([
    [
      'a block that is none',
      { blockTables: Int32Array.of(0, 4) },
      /^blockTables\[1\]: block 4 is not one of 4/,
    ],
    ['a token that is none', { tokenIds: Int32Array.of(1, 2, 2048) }, /^tokenIds: 2048 is not one of 2048/],
    ['a table too short', { contextLengths: Int32Array.of(0, 16) }, /^blockTables\[1\]: is too short/],
    ['a top-p of zero', { topPs: Float32Array.of(1, 0) }, /^topPs\[1\]/],
    ['another kind of array', { seeds: Int32Array.of(0, 0, 0, 0) as never }, /^seeds: must be a Uint32Array/],
    [
      'tables wider than it was opened for',
      { blockTables: Int32Array.of(0, 0, 0, 1, 1, 1), blockTableStride: 3 },
      /^blockTableStride: is 3, and the model was opened for 2/,
    ],
    [
      'more tokens than it was opened for',
      { tokenIds: new Int32Array(9), tokenStarts: Int32Array.of(0, 8, 9) },
      /^tokenIds: a step of 9, and the model was opened for 8/,
    ],
    [
      'more rows with logits than it was opened for',
      {
        tokenIds: Int32Array.of(1, 2, 3, 4, 5, 6, 7),
        tokenStarts: Int32Array.of(0, 6, 7),
        draftCounts: Int32Array.of(4, 0),
      },
      /rows with logits are 5, and the model was opened for 4/,
    ],
  ])('a step with %s is refused by name and runs nothing', async (_, batch, fault) => {
    const broken = run(batch);
    await expect(broken).rejects.toThrow(NativeError);
    await expect(broken).rejects.toThrow(fault);
  });

  test('a path that is none, or that was not made ready, is refused', async () => {
    await expect(run({}, { gemvRowsPerWarp: 5 })).rejects.toThrow(/^gemvRowsPerWarp: must be a whole number/);
    await expect(run({}, { mmaTile: native.mmaTileCount() + 1 })).rejects.toThrow(/^mmaTile/);
    await expect(run({}, { splitTokens: 128 })).rejects.toThrow(NativeError);
    expect(native.isBatchInvariant(path)).toBe(true);
    expect(native.isBatchInvariant({ ...path, linear: 1 })).toBe(false);
    expect((await run()).sampledTokenIds[1]).toBe(-1);
  });

  test('a second step beside a running one is refused, closed handles too, and the first step settles', async () => {
    const own = (await native.openModel(loaded.shape, loaded.tensors, limits)).model;
    const cache = (await native.createKvCache(own, 2, 16, 'bf16')).kvCache;
    await native.prepare(own, cache, path);
    const first = native.runStep(own, cache, path, goodBatch);
    await expect(native.runStep(own, cache, path, goodBatch)).rejects.toThrow(/a step is running/);
    await expect(native.runStep(model, cache, path, goodBatch)).rejects.toThrow(/was made for another model/);
    native.closeKvCache(cache);
    native.closeModel(own);
    await expect(first).resolves.toBeDefined();
    await expect(native.runStep(own, cache, path, goodBatch)).rejects.toThrow(/^model: is closed/);
    await expect(native.createKvCache(model, 2, 16, 'int8')).rejects.toThrow(/bf16/);
    await expect(native.createKvCache(model, 2, 32, 'bf16')).rejects.toThrow(/blockSize/);
  });

  test('a model whose tensor does not fit its file is refused, and the process lives', async () => {
    const { shape, tensors } = loaded;
    const head = { ...tensors.head, file: '/nowhere/model.safetensors' };
    await expect(native.openModel(shape, { ...tensors, head }, limits)).rejects.toThrow(/nowhere/);
    const latent = { ...shape, latent: null, experts: { ...expertShape } };
    await expect(native.openModel(latent, tensors, limits)).rejects.toThrow(
      /^experts: the CUDA kernels run dense/,
    );
  });
});

const expertShape = {
  expertCount: 4,
  expertsPerToken: 2,
  intermediateSize: 8,
  sharedIntermediateSize: 0,
  scoring: 'softmax',
  groupCount: 1,
  groupsPerToken: 1,
  isNormalised: true,
  scale: 1,
} as const;
