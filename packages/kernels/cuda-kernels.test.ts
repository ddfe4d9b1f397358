/**
 * The CUDA kernels on the emulated device: every kernel against its slow version under several seeds of the schedule. Says
 * nothing about a GPU's speed, and nothing about a GPU at all beyond what nvcc compiles.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { beforeAll, expect, test } from 'vitest';
import { buildCuda, type CudaFiles } from './build-cuda.mjs';

let files: CudaFiles;
beforeAll(async () => {
  const built = await buildCuda();
  if (built === null) throw new Error('the emulated flavour is always built');
  files = built;
}, 600_000);

console.warn('SKIPPED: no GPU (kernels run in the emulator; compute-sanitizer and timings need hardware)');

test('every kernel agrees with its slow version, in the emulator, under two seeds', () => {
  const { status, stdout, stderr } = spawnSync(files.runner, ['check', '--seeds', '2'], { encoding: 'utf8' });
  expect(stderr).toBe('');
  expect(stdout).toContain('emulated');
  expect(stdout.split('\n').filter((line) => line.startsWith('WRONG'))).toEqual([]);
  expect(status).toBe(0);
}, 600_000);

test('the timings run from end to end in the emulator, and say that they say nothing', () => {
  const folder = mkdtempSync(join(tmpdir(), 'variator-cuda-time-'));
  const json = join(folder, 'times.json');
  const { status, stdout } = spawnSync(files.runner, ['time', '--quick', '--json', json], {
    encoding: 'utf8',
  });
  expect(stdout).toContain('EMULATED: no hardware was used');
  expect(status).toBe(0);
  const times = JSON.parse(readFileSync(json, 'utf8')) as { isEmulated: boolean; rows: { us: number }[] };
  rmSync(folder, { recursive: true });
  expect(times.isEmulated).toBe(true);
  expect(times.rows.length).toBeGreaterThan(50);
  expect(times.rows.every(({ us }) => us > 0)).toBe(true);
  const refused = spawnSync(files.runner, ['time'], { encoding: 'utf8' });
  expect(refused.status).toBe(1);
  expect(refused.stderr).toContain('an emulated device has no speed');
}, 120_000);

test('timings of whole steps run from end to end in the emulator', () => {
  const { status, stdout } = spawnSync(files.runner, ['time-step', '--quick'], { encoding: 'utf8' });
  expect(status).toBe(0);
  expect(stdout).toContain('EMULATED: no hardware was used');
  for (const kv of ['bf16', 'wgmma', 'fp8']) {
    for (const weights of ['bf16', 'e4m3', 'int4']) {
      expect(stdout).toMatch(new RegExp(`^${kv} +${weights} +gemv +1 `, 'm'));
    }
  }
  expect(spawnSync(files.runner, ['time-step'], { encoding: 'utf8' }).status).toBe(1);
}, 120_000);

test('timings of the Hopper kernels run from end to end in the emulator, too', () => {
  const { status, stdout } = spawnSync(files.runner, ['time-hopper', '--quick'], { encoding: 'utf8' });
  expect(status).toBe(0);
  expect(stdout).toContain('EMULATED: no hardware was used');
  for (const kernel of ['gemm', 'skinny', 'prefill', 'decode', 'latent', 'experts'])
    expect(stdout).toContain(`\n${kernel} `);
  expect(spawnSync(files.runner, ['time-hopper'], { encoding: 'utf8' }).status).toBe(1);
}, 120_000);
