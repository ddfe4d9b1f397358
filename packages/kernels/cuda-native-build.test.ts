/** That nvcc compiles every CUDA source for sm_90a, where it is found; the files are not run. Says SKIPPED aloud elsewhere. */
import { existsSync } from 'node:fs';
import { expect, test } from 'vitest';
import { buildCuda } from './build-cuda.mjs';

test('nvcc compiles the library and the runner', async ({ skip }) => {
  const built = await buildCuda({ flavour: 'native' });
  if (built === null) {
    console.warn('SKIPPED: no nvcc');
    skip('no nvcc');
    return;
  }
  expect(existsSync(built.library)).toBe(true);
  expect(existsSync(built.runner)).toBe(true);
}, 1_200_000);
