/** Opening a CUDA library that is none, is another's, or finds no GPU: each a sentence, and the process lives. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { faultyCuda } from './faulty-cuda.fixture.ts';
import { NativeError } from './native.ts';
import { loadCuda } from './native-cuda.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-cuda-'));
afterAll(() => rmSync(folder, { recursive: true }));

test('a library that has not been built says how to build it', () => {
  const open = () => loadCuda(join(folder, 'libvariator_cuda.so'), 0);
  expect(open).toThrow(NativeError);
  expect(open).toThrow(/have not been built .*npm run build:cuda/);
});

test('a file that is no library, and one without our functions', () => {
  const file = join(folder, 'libnone.so');
  writeFileSync(file, 'none');
  expect(() => loadCuda(file, 0)).toThrow(/^The CUDA library cannot be opened: .*libnone\.so/);
});

test('a library of another build is refused by its ABI', () => {
  const file = faultyCuda(folder, { fault: 'otherAbi' });
  expect(() => loadCuda(file, 0)).toThrow(/has ABI \d+, and this build needs \d+: build both again/);
});

test('without a driver or a GPU it says what the driver said', () => {
  const file = faultyCuda(folder, { fault: 'noDevice' });
  const open = () => loadCuda(file, 3);
  expect(open).toThrow(NativeError);
  expect(open).toThrow('No GPU can be used as cuda:3: device: no CUDA-capable device is detected');
});
