import { spawnSync } from 'node:child_process';
import { statSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';

const build = fileURLToPath(new URL('build.mjs', import.meta.url));
const addon = fileURLToPath(new URL('build/variator_kernels.node', import.meta.url));
const run = (env?: Record<string, string>) =>
  spawnSync(process.execPath, [build], { encoding: 'utf8', ...(env === undefined ? {} : { env }) });

test('building again compiles nothing and leaves the addon as it is', () => {
  run();
  const before = statSync(addon).mtimeMs;
  const again = run();
  expect(again.stderr).toBe('');
  expect(again.stdout).toBe('');
  expect(again.status).toBe(0);
  expect(statSync(addon).mtimeMs).toBe(before);
});

test('without a compiler the build says in one sentence what to install', () => {
  const { status, stderr } = run({ PATH: '/nowhere' });
  expect(status).toBe(1);
  expect(stderr).toBe(
    'Variator needs a C++17 compiler (Debian: apt-get install g++; macOS: xcode-select --install).\n',
  );
  expect(run({ PATH: '/usr/bin:/bin', CXX: '/nowhere/c++' }).stderr).toBe(stderr);
});
