/** Compiles a CUDA library with a fault (faulty-cuda.fixture.cc) into a folder, for tests. Needs the C++ compiler alone. */
import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';

const source = fileURLToPath(new URL('faulty-cuda.fixture.cc', import.meta.url));
const faults = { noDevice: 1, otherAbi: 2, deviceLost: 3 } as const;

export interface FaultyCuda {
  readonly fault: keyof typeof faults;
  /** The library that does what the fault leaves. */
  readonly library?: string;
  /** Steps that still run before the device is lost. */
  readonly lostAfterSteps?: number;
}

/** @returns the library's file */
export function faultyCuda(folder: string, { fault, library, lostAfterSteps = 0 }: FaultyCuda): string {
  const file = join(folder, `libfaulty_${fault}.so`);
  const defines = [`-DFAULT=${faults[fault]}`, `-DLOST_AFTER_STEPS=${lostAfterSteps}`];
  if (library !== undefined) defines.push(`-DLIBRARY="${library}"`);
  const flags = ['-std=c++17', '-O1', '-shared', '-fPIC', '-fvisibility=hidden'];
  const { status, stderr } = spawnSync('c++', [...flags, ...defines, source, '-o', file, '-ldl'], {
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return file;
}
