/**
 * Products by cuBLASLt on the emulated device: with a stand-in for the library that does what its documentation says
 * (cublaslt.fixture.cc), and without any, where a path by it is refused aloud. NVIDIA's own library needs a GPU.
 */
import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { buildCuda } from './build-cuda.mjs';
import { packGolden } from './cuda-pack-golden.ts';
import { readGolden } from './golden-files.fixture.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-cublaslt-'));
afterAll(() => rmSync(folder, { recursive: true }));
let runner = '';
beforeAll(async () => {
  runner = (await buildCuda())?.runner ?? '';
  const source = fileURLToPath(new URL('cublaslt.fixture.cc', import.meta.url));
  const flags = ['-std=c++17', '-O1', '-shared', '-fPIC', '-fvisibility=hidden'];
  const { status, stderr } = spawnSync('c++', [...flags, source, '-o', join(folder, 'libcublasLt.so.13')], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
}, 600_000);

const run = (libraries: string | undefined, ...args: string[]) =>
  spawnSync(runner, args, { encoding: 'utf8', env: { ...process.env, LD_LIBRARY_PATH: libraries } });
const biased = readGolden('qwen2-bias');

test('every product that a layer asks for, against double precision, eagerly and by a graph', () => {
  const { status, stdout } = run(folder, 'check', '--only', 'gemm-library');
  const compared = Number(/gemm-library +(\d+) values/.exec(stdout)?.[1]);
  expect(compared).toBeGreaterThan(1000);
  expect(stdout).toMatch(/^ok +gemm-library/m);
  expect(status).toBe(0);
}, 120_000);

test.skipIf(biased === null)(
  'golden tokens by it at 94 % of positions or more',
  async () => {
    if (biased === null) return;
    const file = await packGolden(biased, folder);
    const { status, stdout } = run(
      folder,
      'golden',
      '--linear',
      'library',
      '--chunk',
      '40',
      '--least',
      '0.94',
      file,
    );
    expect(stdout).toMatch(/^ok +qwen2-bias/m);
    expect(status).toBe(0);
  },
  120_000,
);

test.skipIf(biased === null)(
  'without the library a path by it is refused in words',
  async () => {
    if (biased === null) return;
    // Where the loader finds one by itself, this machine is none to try it on.
    const { stdout } = run(undefined, 'check', '--only', 'gemm-library');
    const isThere = Number(/gemm-library +(\d+) values/.exec(stdout)?.[1]) > 1;
    const { status, stderr } = run(
      undefined,
      'golden',
      '--linear',
      'library',
      await packGolden(biased, folder),
    );
    if (isThere) return;
    expect(stdout).toMatch(/^ok +gemm-library/m);
    expect(stderr).toContain('cuBLASLt is not to be found (libcublasLt.so.13, libcublasLt.so.12)');
    expect(status).toBe(1);
  },
  120_000,
);
