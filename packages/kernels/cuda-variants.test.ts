import { expect, test } from 'vitest';
import {
  catalogue,
  cudaAttentionOf,
  cudaAttentionsFor,
  cudaAttentionVariants,
  cudaLinearOf,
  cudaLinearVariants,
  kvFormatOf,
  type LinearVariantId,
  variantOf,
  weightBytes,
} from './catalogue.ts';
import { cudaKernels, readCudaTiles, usualCudaTiles } from './cuda-variants.ts';
import {
  diffPaths,
  type Envelope,
  kernelsId,
  namedPaths,
  numericsId,
  parsePath,
  pathFaults,
  pathId,
} from './execution-path.ts';

const envelope: Envelope = {
  deviceKind: 'cuda-sm90',
  deviceName: 'a GPU',
  modelId: 'm',
  modelHash: 'h',
  linearVariants: cudaLinearVariants,
  attentionVariants: cudaAttentionVariants,
  threadCount: 1,
  kvBlockCount: 64,
  kvBlockCounts: {},
  kvBlockSize: 16,
  maxModelLenTokens: 1024,
  maxTokenBudget: 8192,
  maxRunningCount: 256,
  maxDraftTokenCount: 16,
  vocabularySize: 100,
  layerCount: 1,
  headCount: 1,
  headSize: 2,
  activeParameterCount: 1,
  weightBytes: {},
  kvBytesPerToken: 1,
  probe: {
    cpuModel: 'a GPU',
    coreCount: 132,
    features: ['sm90'],
    readBytesPerSecond: 0,
    float32FlopsPerSecond: 0,
    int8OpsPerSecond: 0,
  },
};

test('every variant says which device it is for, and those of a GPU need one', () => {
  for (const { id, device, needs } of catalogue) {
    expect(device).toBe(id.includes('.cuda-') ? 'cuda' : 'cpu');
    if (device === 'cuda') expect(needs.filter((need) => need !== 'cublaslt')).toEqual(['sm90']);
  }
  expect(cudaLinearVariants.map(cudaLinearOf)).toEqual([
    ...['bf16-mma', 'bf16-gemv', 'bf16-wgmma', 'bf16-library', 'bf16-skinny'],
    ...['fp8-mma', 'fp8-gemv', 'fp8-wgmma', 'fp8-skinny', 'int4-mma', 'int4-gemv'],
  ]);
  expect(variantOf('linear.cuda-bf16-library').needs).toEqual(['sm90', 'cublaslt']);
  expect(variantOf('linear.cuda-bf16-mma').isBatchInvariant).toBe(true);
  expect(variantOf('linear.cuda-bf16-gemv').isBatchInvariant).toBe(false);
});

test('a GPU has limits of its size, and its reference is batch-invariant throughout', () => {
  const named = namedPaths(envelope);
  for (const path of Object.values(named)) expect(pathFaults(path, envelope)).toEqual([]);
  expect(named.balanced).toMatchObject({ linear: 'linear.cuda-bf16-mma', attention: 'attention.cuda-bf16' });
  expect(named.latency).toMatchObject({ linear: 'linear.cuda-bf16-gemv', tokenBudget: 512 });
  expect(named.throughput).toMatchObject({ tokenBudget: 8192, maxRunningCount: 256 });
  for (const id of [named.reference.linear, named.reference.attention])
    expect(variantOf(id).isBatchInvariant).toBe(true);
});

test('weights in fewer bits are paths of their own: other bits, other bytes, the LM head never in 4 bits', () => {
  const tensor = {
    name: 't',
    file: 'f',
    dtype: 'BF16',
    offset: 0,
    byteLength: 0,
    rows: 256,
    columns: 160,
  } as const;
  const bytes = (id: LinearVariantId, role: 'layer' | 'head') => weightBytes(id, tensor, role) / 256;
  expect(bytes('linear.cuda-bf16-mma', 'layer')).toBe(320);
  expect(bytes('linear.cuda-fp8-wgmma', 'layer')).toBe(160 + 4);
  // The second group of columns is a short one.
  expect(bytes('linear.cuda-int4-gemv', 'layer')).toBe(80 + 8);
  expect(bytes('linear.cuda-int4-gemv', 'head')).toBe(160 + 4);
  const ids = new Set(
    cudaLinearVariants.map((linear) => numericsId({ ...parsePath('balanced', envelope), linear })),
  );
  expect(ids.size).toBe(cudaLinearVariants.length);
});

test('keys and values in fp8 are another attention, with bits, a format and a number of its own', () => {
  expect(cudaAttentionVariants).toEqual([
    'attention.cuda-bf16',
    'attention.cuda-bf16-wgmma',
    'attention.cuda-fp8',
  ]);
  expect(cudaAttentionVariants.map(kvFormatOf)).toEqual(['bf16', 'bf16', 'fp8']);
  expect(cudaAttentionsFor(128, 4)).toEqual(cudaAttentionVariants);
  expect(cudaAttentionsFor(96, 4)).not.toContain('attention.cuda-bf16-wgmma');
  expect(cudaAttentionsFor(64, 17)).not.toContain('attention.cuda-bf16-wgmma');
  const balanced = parsePath('balanced', envelope);
  const fp8 = parsePath('balanced,attention=attention.cuda-fp8,splitTokens=64', envelope);
  expect(numericsId(fp8)).not.toBe(numericsId({ ...balanced, splitTokens: 64 }));
  expect(() => cudaAttentionOf('attention.int8')).toThrow('attention.int8 is no variant for a GPU.');
});

test('settings that change no bit are tiles: they name another path and other kernels, not other bits', () => {
  const measured = parsePath('balanced', envelope);
  const text = 'balanced,tiles=gemv.rowsPerWarp=4+mma.tile=2+graphs.use=0';
  const tiled = parsePath(text, envelope);
  expect(diffPaths(measured, tiled)).toEqual([
    { setting: 'tiles', from: 'measured', to: 'gemv.rowsPerWarp=4+mma.tile=2+graphs.use=0' },
  ]);
  expect(pathId(tiled)).not.toBe(pathId(measured));
  expect(kernelsId(tiled)).not.toBe(kernelsId(measured));
  expect(numericsId(tiled)).toBe(numericsId(measured));
  const gemv = { ...measured, linear: 'linear.cuda-bf16-gemv' } as const;
  expect(numericsId(gemv)).not.toBe(numericsId(measured));
});

test('tiles are read over the usual values, and what cannot be is a sentence', () => {
  expect(readCudaTiles('measured')).toEqual(usualCudaTiles);
  expect(readCudaTiles('gemv.loads=4+graphs.use=0')).toEqual({
    ...usualCudaTiles,
    'gemv.loads': 4,
    'graphs.use': 0,
  });
  expect(readCudaTiles('gemv.rowsPerWarp=3')).toBe('tiles: gemv.rowsPerWarp must be one of 1, 2, 4, not 3.');
  for (const bad of ['', 'full.slabRows=48', 'gemv.constructor=1', 'gemv.loads', 'constructor.name=1'])
    expect(readCudaTiles(bad)).toContain('tiles on a GPU must be measured, prior, or settings such as');
  for (const { parameters } of cudaKernels)
    for (const { values, usual } of Object.values(parameters)) expect(values).toContain(usual);
});

test('a GPU path is refused what is for CPUs, and the other way round', () => {
  expect(() => parsePath('balanced,linear=linear.reference', envelope)).toThrow(
    'linear.reference cannot run on a GPU; it can run linear.cuda-bf16-mma, linear.cuda-bf16-gemv,',
  );
  expect(() => parsePath('balanced,tiles=full.slabRows=48', envelope)).toThrow('tiles on a GPU must be');
  expect(() => parsePath('balanced,splitTokens=1024', envelope)).toThrow('from 64 to 512, not 1024');
  expect(parsePath('balanced,splitTokens=64', envelope).splitTokens).toBe(64);
  const cpu: Envelope = {
    ...envelope,
    deviceName: 'a CPU',
    linearVariants: ['linear.reference'],
    attentionVariants: ['attention.reference'],
  };
  expect(() => parsePath('balanced,splitTokens=64', cpu)).toThrow('from 128 to 2048, not 64');
  expect(() => parsePath('balanced,tiles=graphs.use=0', cpu)).toThrow('such as full.slabRows=48');
});
