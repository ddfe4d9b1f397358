import { expect, test } from 'vitest';
import { diffPaths, type Envelope, kernelsId, numericsId, parsePath, pathId } from './execution-path.ts';

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
