import { expect, test } from 'vitest';
import {
  completedPath,
  diffPaths,
  type Envelope,
  type ExecutionPath,
  kernelsId,
  numericsId,
  parsePath,
  pathId,
} from './execution-path.ts';

const envelope: Envelope = {
  deviceKind: 'cpu-generic',
  deviceName: 'a test',
  modelId: 'm',
  modelHash: 'h',
  linearVariants: ['linear.int8-generic', 'linear.reference'],
  attentionVariants: ['attention.float32', 'attention.reference'],
  threadCount: 2,
  kvBlockCount: 64,
  kvBlockCounts: {},
  kvBlockSize: 16,
  maxModelLenTokens: 1024,
  maxTokenBudget: 2048,
  maxRunningCount: 64,
  maxDraftTokenCount: 16,
  vocabularySize: 100,
  layerCount: 1,
  headCount: 1,
  headSize: 2,
  activeParameterCount: 1,
  weightBytes: {},
  kvBytesPerToken: 1,
  probe: {
    cpuModel: 'c',
    coreCount: 2,
    features: [],
    readBytesPerSecond: 1,
    float32FlopsPerSecond: 1,
    int8OpsPerSecond: 1,
  },
};

test('tiles are a setting like the others: read, checked, in the names of path and kernels, not in that of the bits', () => {
  const measured = parsePath('balanced', envelope);
  expect(measured.tiles).toBe('measured');
  const own = parsePath('balanced,tiles=full.slabRows=48+gemv.prefetchGroups=8,maxRunningCount=4', envelope);
  expect(own.tiles).toBe('full.slabRows=48+gemv.prefetchGroups=8');
  expect(own.maxRunningCount).toBe(4);
  const tiled = { ...measured, tiles: 'prior' };
  expect(pathId(tiled)).not.toBe(pathId(measured));
  expect(kernelsId(tiled)).not.toBe(kernelsId(measured));
  expect(numericsId(tiled)).toBe(numericsId(measured));
  expect(diffPaths(measured, tiled)).toEqual([{ setting: 'tiles', from: 'measured', to: 'prior' }]);
  expect(() => parsePath('balanced,tiles=full.slabRows=97', envelope)).toThrow(
    'tiles: full.slabRows must be a whole number from 1 to 96, not 97.',
  );
});

test('splits are a setting that decides bits: in the names of path, kernels and numerics, but not of the reference, which has none', () => {
  const usual = parsePath('balanced', envelope);
  expect(usual.splitTokens).toBe(512);
  const own = parsePath('balanced,splitTokens=1024', envelope);
  expect(diffPaths(usual, own)).toEqual([{ setting: 'splitTokens', from: 512, to: 1024 }]);
  const names = [pathId, kernelsId, numericsId];
  for (const name of names) expect(name(own)).not.toBe(name(usual));
  const reference = { ...own, attention: 'attention.reference' } as const;
  expect(numericsId(reference)).toBe(numericsId({ ...reference, splitTokens: 512 }));
  expect(kernelsId(reference)).toBe(kernelsId({ ...reference, splitTokens: 512 }));
  expect(pathId(reference)).not.toBe(pathId({ ...reference, splitTokens: 512 }));
  for (const bad of [64, 384, 4096, 0, 0.5, 'many']) {
    expect(() => parsePath(`balanced,splitTokens=${bad}`, envelope)).toThrow(
      /^splitTokens must be a power of two from 128 to 2048, not /,
    );
  }
});

test('a path that was written down before it had all settings keeps its names', () => {
  const { splitTokens, tiles, draftTokenCount, ...old } = parsePath('balanced', envelope);
  const whole = completedPath(old as ExecutionPath);
  expect(whole).toEqual({ ...old, splitTokens: 512, tiles: 'measured', draftTokenCount: 0 });
  // As they were before there were splits to set: stored rows name paths by them.
  const names = [pathId(whole), kernelsId(whole), numericsId(whole)];
  expect(names).toEqual(['f8cf985ed7d8', '6d1e54ad5538', 'c8dcc29fd003']);
});
