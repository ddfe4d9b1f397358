/**
 * What cannot be started says so: one sentence on stderr that names the thing, exit code 1, no stack trace, and no
 * process left. Every case is a real start on the story model, spoiled in one place.
 */
import { spawn } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, describe, expect, test } from 'vitest';
import { canSeeProcesses, descendantsOf, livingProcesses } from './process-tree.ts';
import { root } from './running-product.ts';

const folder = mkdtempSync(join(tmpdir(), 'variator-bad-start-'));
afterAll(() => rmSync(folder, { recursive: true, force: true }));

const storyModel = join(root, 'models/stories-5m');
/** A start that would succeed. */
const soundFlags = {
  '--model': storyModel,
  '--port': '0',
  '--admin-port': '0',
  '--web-port': '0',
  '--data': join(folder, 'data'),
};

interface Ending {
  readonly code: number | null;
  readonly stdout: string;
  readonly stderr: string;
  /** Everything that ran below it, and still runs. */
  readonly survivors: readonly string[];
}

/** Runs to its end, or is killed after the limit, which leaves no exit code. */
async function runNode(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<Ending> {
  const inherited = Object.entries(process.env).filter(([name]) => !/^VARIATOR_|^CXX$/.test(name));
  const child = spawn(process.execPath, args, {
    cwd: root,
    env: { ...Object.fromEntries(inherited), ...env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let [stdout, stderr] = ['', ''];
  child.stdout.on('data', (data) => {
    stdout += data;
  });
  child.stderr.on('data', (data) => {
    stderr += data;
  });
  const seen = new Set<number>();
  const watch = setInterval(() => {
    if (!canSeeProcesses || child.pid === undefined) return;
    for (const { pid } of descendantsOf(child.pid)) seen.add(pid);
  }, 100);
  const limit = setTimeout(() => child.kill('SIGKILL'), 45_000);
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once('error', reject);
    child.once('close', resolve);
  });
  clearInterval(watch);
  clearTimeout(limit);
  const survivors = canSeeProcesses ? livingProcesses().filter(({ pid }) => seen.has(pid)) : [];
  return { code, stdout, stderr, survivors: survivors.map(({ commandLine }) => commandLine) };
}

const start = (flags: Readonly<Record<string, string>>, env: Readonly<Record<string, string>> = {}) =>
  runNode(
    ['apps/engine/cli/bootstrap.mjs', 'start', ...Object.entries({ ...soundFlags, ...flags }).flat()],
    env,
  );

function expectOneSentence({ code, stdout, stderr, survivors }: Ending, sentence: RegExp): void {
  expect(stderr).toMatch(sentence);
  expect(stderr.trim().split('\n'), stderr).toHaveLength(1);
  expect(stderr.trim()).toMatch(/\.\)?$/);
  expect(code).toBe(1);
  // Said once: not among the lines of the part that found it as well.
  expect(stdout).not.toContain(stderr.trim());
  expect(`${stdout}${stderr}`).not.toMatch(/^\s+at |Error:|Node\.js v/m);
  expect(survivors).toEqual([]);
}

describe('a start that cannot be', () => {
  test('names an unknown variable, and the one that was meant', async () => {
    expectOneSentence(await start({}, { VARIATOR_PROT: '9000' }), /VARIATOR_PROT.*VARIATOR_PORT/);
  });

  test('names an unknown flag, and the one that was meant', async () => {
    expectOneSentence(await start({ '--prot': '9000' }), /--prot.*--port/);
  });

  test('names a value that is none', async () => {
    expectOneSentence(await start({ '--threads': 'many' }), /--threads.*"many"/);
  });

  test('names a port that is taken', async () => {
    const other = createServer();
    await new Promise<void>((resolve) => other.listen(0, '127.0.0.1', resolve));
    const address = other.address();
    const port = typeof address === 'object' && address ? String(address.port) : '';
    try {
      expectOneSentence(await start({ '--web-port': port }), new RegExp(`Port ${port} .*--web-port`));
    } finally {
      await new Promise((closed) => other.close(closed));
    }
  });

  test('names a port that is asked for twice', async () => {
    const probe = createServer();
    await new Promise<void>((resolve) => probe.listen(0, '127.0.0.1', resolve));
    const address = probe.address();
    const port = typeof address === 'object' && address ? String(address.port) : '';
    await new Promise((closed) => probe.close(closed));
    const flags = { '--port': port, '--admin-port': port };
    expectOneSentence(await start(flags), new RegExp(`Port ${port} .*--admin-port`));
  });

  test('refuses to listen beyond loopback without keys, and names both', async () => {
    expectOneSentence(await start({ '--host': '0.0.0.0' }), /VARIATOR_API_KEY and VARIATOR_ADMIN_KEY/);
    const withOne = await start({ '--host': '0.0.0.0' }, { VARIATOR_API_KEY: 'a-key-of-clients' });
    expectOneSentence(withOne, /set VARIATOR_ADMIN_KEY first/);
  });

  test('names an address that is not of this machine', async () => {
    // TEST-NET-1: no machine has it.
    const keys = { VARIATOR_API_KEY: 'a-key-of-clients', VARIATOR_ADMIN_KEY: 'a-key-of-people' };
    expectOneSentence(await start({ '--host': '192.0.2.1' }, keys), /192\.0\.2\.1.*--host/);
  });

  test('names a data folder that cannot be made', async () => {
    const file = join(folder, 'a-file');
    writeFileSync(file, '');
    expectOneSentence(await start({ '--data': join(file, 'data') }), /a-file.*--data/);
  });

  test('names a model that is not there', async () => {
    const missing = join(folder, 'no-such-model');
    expectOneSentence(await start({ '--model': missing }), /no-such-model: there is no such file or folder/);
  });

  test('names the file and the fault of a model that is cut short', async () => {
    const cut = join(folder, 'cut');
    cpSync(storyModel, cut, { recursive: true });
    truncateSync(join(cut, 'model.safetensors'), 1_000_000);
    expectOneSentence(await start({ '--model': cut }), /cut\/model\.safetensors: .*1000000/);
  });

  test('names the file and the fault of a GGUF that is none', async () => {
    const garbage = join(folder, 'garbage.gguf');
    writeFileSync(garbage, Buffer.alloc(4096, 0xa5));
    expectOneSentence(await start({ '--model': garbage }), /garbage\.gguf: .*not a GGUF file/);
  });

  test('names an unknown execution path, and those there are', async () => {
    expectOneSentence(await start({ '--path': 'warp' }), /"warp".*balanced.*reference/);
  });

  test('says how much memory is too little', async () => {
    expectOneSentence(await start({ '--kv-memory': '1MiB' }), /KV memory.*--kv-memory/);
  });

  test('asks for a compiler where there is none', async () => {
    const empty = join(folder, 'no-programs');
    mkdirSync(empty, { recursive: true });
    // Looked for before anything is written, so that what is built already stays.
    expectOneSentence(
      await runNode(['packages/kernels/build.mjs'], { PATH: empty }),
      /needs a C\+\+17 compiler \(.*g\+\+/,
    );
    expectOneSentence(await start({}, { PATH: empty }), /needs a C\+\+17 compiler \(.*g\+\+/);
  });
});
