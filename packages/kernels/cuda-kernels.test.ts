/**
 * The CUDA kernels on the emulated device: every kernel against its slow version under several seeds of the schedule. Says
 * nothing about a GPU's speed, and nothing about a GPU at all beyond what nvcc compiles.
 */
import { spawnSync } from 'node:child_process';
import { beforeAll, expect, test } from 'vitest';
import { buildCuda, type CudaFiles } from './build-cuda.mjs';

let files: CudaFiles;
beforeAll(async () => {
  const built = await buildCuda();
  if (built === null) throw new Error('the emulated flavour is always built');
  files = built;
}, 600_000);

console.warn('SKIPPED: no GPU (kernels run in the emulator; compute-sanitizer and timings need hardware)');

test('every kernel agrees with its slow version, in the emulator, under three seeds', () => {
  const { status, stdout, stderr } = spawnSync(files.runner, ['check', '--seeds', '3'], { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(stdout).toContain('emulated');
  expect(stdout.split('\n').filter((line) => line.startsWith('WRONG'))).toEqual([]);
  expect(status).toBe(0);
}, 300_000);
