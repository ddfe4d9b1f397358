/**
 * The tests of the native kernels and the checks of the CUDA kernels once more, on builds that AddressSanitizer and
 * UndefinedBehaviorSanitizer watch: an access out of bounds or an undefined operation ends the run. Called by run-tests.ts.
 * Needs the compiler's own runtime, which it preloads into Node; where there is none it says SKIPPED.
 */
import { execFileSync, spawn, spawnSync } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { buildNative } from '../packages/kernels/build.mjs';
import { buildCuda } from '../packages/kernels/build-cuda.mjs';

/** Small models only: the large one takes minutes here and shows no other code. */
const TESTS = [
  'border',
  'attention',
  'attention-alone',
  'dispatch',
  'drafts',
  'experts',
  'latents',
  'linear',
  'sampling',
  'window',
].map((name) => `packages/kernels/native-${name}.test.ts`);
const NAMES = '^(?!.*smollm2)';

export type SanitizedOutcome = { readonly code: number } | { readonly skippedBecause: string };

export async function runSanitized(root: string): Promise<SanitizedOutcome> {
  const runtime = asanRuntime();
  if (runtime === null) return { skippedBecause: 'the compiler has no AddressSanitizer runtime' };
  await buildNative({ flavour: 'sanitized', log: (line) => console.log(line) });
  const vitest = join(root, 'node_modules/vitest/vitest.mjs');
  const code = await new Promise<number>((done, fail) => {
    const child = spawn(
      process.execPath,
      [vitest, 'run', '--reporter=dot', '--testTimeout=600000', '--testNamePattern', NAMES, ...TESTS],
      {
        cwd: root,
        stdio: ['ignore', 'inherit', 'inherit'],
        env: {
          PATH: process.env.PATH,
          LD_PRELOAD: runtime,
          // Node itself never frees everything at its end.
          ASAN_OPTIONS: 'detect_leaks=0',
          UBSAN_OPTIONS: 'print_stacktrace=1',
          NODE_OPTIONS: `--require=${join(root, 'test/sanitized-addon.cjs')}`,
        },
      },
    );
    child.on('error', fail);
    child.on('close', (status) => done(status ?? 1));
  });
  if (code !== 0) return { code };
  // The CUDA kernels on the emulated device: a program of its own, which needs no preloaded runtime.
  const cuda = await buildCuda({ flavour: 'sanitized', log: (line) => console.log(line) });
  if (cuda === null) throw new Error('the sanitized flavour needs no nvcc');
  const checked = spawnSync(cuda.runner, ['check'], { stdio: ['ignore', 'inherit', 'inherit'] });
  return { code: checked.status ?? 1 };
}

function asanRuntime(): string | null {
  if (process.platform !== 'linux') return null;
  try {
    const file = execFileSync('c++', ['-print-file-name=libasan.so'], { encoding: 'utf8' }).trim();
    // Where it is not there, the compiler says the bare name back.
    return existsSync(file) && file.startsWith('/') ? file : null;
  } catch {
    return null;
  }
}
