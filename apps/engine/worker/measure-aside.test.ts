/** Kernels that are made ready on a device that serves: measured later, in short calls, and other tokens from none of it. */
import { mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type ExecutionPath, namedPaths } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import type { BatchEntry } from '@variator/scheduler/batch';
import { afterAll, expect, test } from 'vitest';
import { cpuDevice } from './cpu-device.ts';
import type { Device } from './device.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-aside-'));
afterAll(() => rmSync(folder, { recursive: true }));
const story = fileURLToPath(new URL('../../../models/stories-5m', import.meta.url));
const options = {
  threadCount: 2,
  kvMemoryBytes: 10 * 1024 ** 2,
  maxModelLenTokens: 256,
  isa: 'all',
} as const;

const tunings = () =>
  readdirSync(folder)
    .filter((name) => name.endsWith('.tunings'))
    .map((name) => name.replace(/^[^-]+-/, ''))
    .sort();

async function answer(device: Device, path: ExecutionPath): Promise<number[]> {
  const tokenIds = Array.from({ length: 120 }, (_, index) => 10 + index);
  const sampling = { temperature: 0, topP: 1, topK: 0, seed: 1 };
  const blockTable = device.scratchBlockIds;
  const entry: BatchEntry = {
    kind: 'prefill',
    sequenceId: 's',
    tokenIds,
    contextLength: 0,
    blockTable,
    isSampled: true,
    sampling,
  };
  const { sampledTokenIds } = await device.run(path, [entry], 'scratch');
  return [...sampledTokenIds];
}

test('a device measures what it begins with at once, and what comes while it serves when it is asked to', async () => {
  const device = cpuDevice(await loadModel(story), { ...options, packedWeightsDir: folder });
  const { balanced } = namedPaths(device.envelope);
  await device.prepare(balanced);
  const first = tunings();
  expect(first).toEqual([`${balanced.attention}-512-2.tunings`, `${balanced.linear}-2.tunings`]);
  expect(await device.measureAside()).toBe(false);
  await answer(device, balanced);

  const later: ExecutionPath = { ...balanced, attention: 'attention.int8', splitTokens: 128 };
  await device.prepare(later);
  await device.prepare(later);
  expect(tunings()).toEqual(first);
  const byPrior = await answer(device, later);
  let callCount = 0;
  while (await device.measureAside()) callCount += 1;
  // A call for each kernel, and the end of it, once.
  expect(callCount).toBeGreaterThanOrEqual(2);
  expect(callCount).toBeLessThanOrEqual(3);
  expect(tunings()).toEqual(['attention.int8-128-2.tunings', ...first].sort());
  expect(await answer(device, later)).toEqual(byPrior);
  expect(await device.measureAside()).toBe(false);
  device.close();
});
