import { execFile } from 'node:child_process';
import { cp, mkdtemp, rm, stat } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { promisify } from 'node:util';
import { afterAll, beforeAll, expect, test } from 'vitest';

const run = promisify(execFile);
let folder: string;
let script: string;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), 'variator-build-'));
  script = join(folder, 'build.mjs');
  await cp(fileURLToPath(new URL('build.mjs', import.meta.url)), script);
  await cp(fileURLToPath(new URL('native', import.meta.url)), join(folder, 'native'), { recursive: true });
});
afterAll(() => rm(folder, { recursive: true, force: true }));

test('without a compiler it says in a sentence what to install', async () => {
  const failed = await run(process.execPath, [script], { env: { PATH: '/nonexistent' } }).catch(
    (error: { code: number; stderr: string }) => error,
  );
  expect(failed).toMatchObject({ code: 1, stderr: expect.stringContaining('No C compiler was found') });
  expect(failed.stderr).toContain('VARIATOR_CLICKHOUSE_URL');
});

test('it compiles once, and again only when the source changed', async () => {
  const { stdout } = await run(process.execPath, [script]);
  const binary = join(folder, 'build', 'variator-clickhouse');
  expect(stdout).toContain(binary);
  const { mtimeMs } = await stat(binary);
  await run(process.execPath, [script], { env: { PATH: '/nonexistent' } });
  expect((await stat(binary)).mtimeMs).toBe(mtimeMs);
});
