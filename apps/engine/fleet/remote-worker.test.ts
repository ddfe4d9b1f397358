/** `variator worker --join` as its users start it: streams over TLS, through its death, and what it says when it cannot join. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, it } from 'vitest';
import { environmentForParts } from '../config.ts';
import { readStream, specOf } from './real-workers.fixture.ts';
import { type WorkerFleet, workerFleet } from './worker-fleet.ts';

const root = fileURLToPath(new URL('../../../', import.meta.url));
const token = 'a-token-of-at-least-thirty-two-characters';
let fleet: WorkerFleet;
let folder: string;
const logged: string[] = [];

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'variator-remote-'));
  fleet = workerFleet({
    linkPath: join(folder, 'link.sock'),
    joining: { host: '127.0.0.1', port: 0, token },
    model: null,
    now: () => performance.timeOrigin + performance.now(),
    log: (line) => logged.push(line),
    onRows: () => {},
    pathFor: () => null,
  });
  await fleet.listen();
});
afterAll(async () => {
  await fleet?.close();
  rmSync(folder, { recursive: true, force: true });
});

function command(flags: readonly string[], env: Record<string, string> = {}) {
  const args = ['apps/engine/cli/bootstrap.mjs', 'worker', '--model', 'models/stories-5m', '--threads', '1'];
  args.push('--kv-memory', '64MiB', '--path', 'reference', ...flags);
  const child = spawn(process.execPath, args, { cwd: root, env: { ...environmentForParts(), ...env } });
  let output = '';
  for (const stream of [child.stdout, child.stderr])
    stream.on('data', (data: Buffer) => {
      output += data.toString();
    });
  const exited = once(child, 'exit').then(([code]) => code as number | null);
  return { child, exited, output: () => output };
}
const address = () => `127.0.0.1:${fleet.joinPort()}`;
const until = async (isTrue: () => boolean) => {
  for (let waited = 0; !isTrue() && waited < 30_000; waited += 10)
    await new Promise((resolve) => setTimeout(resolve, 10));
  expect(isTrue()).toBe(true);
};
const prompt = Array.from({ length: 40 }, (_, index) => 10 + ((index * 13) % 900));
const TOKENS = 200;

it('two workers of another machine serve; one killed in the middle is resumed, and Ctrl-C ends both', async () => {
  const workers = command(['--join', address(), '--workers', '2', '--threads', '2', '--worker-id', 'far'], {
    VARIATOR_JOIN_TOKEN: token,
  });
  await until(() => fleet.workers().length === 2);
  expect(
    fleet
      .workers()
      .map(({ workerId }) => workerId)
      .sort(),
  ).toEqual(['far-0', 'far-1']);
  const undisturbed = await readStream(fleet.submit(specOf('undisturbed', prompt, TOKENS), 0));
  expect(undisturbed.tokenIds).toHaveLength(TOKENS);

  let hasKilled = false;
  const killed = await readStream(fleet.submit(specOf('killed', prompt, TOKENS), 0), (count) => {
    if (count < 50 || hasKilled) return;
    hasKilled = true;
    const victim = fleet.workers().find(({ runningCount }) => runningCount > 0) ?? fleet.workers()[0];
    if (victim) process.kill(victim.pid, 'SIGKILL');
  });
  expect(killed.tokenIds).toEqual(undisturbed.tokenIds);
  await until(() => fleet.workers().length === 2);
  expect(workers.output()).toContain(`joined the gateway at ${address()}`);

  workers.child.kill('SIGINT');
  expect(await workers.exited).toBe(0);
  await until(() => fleet.workers().length === 0);
});

it.each<[string, string[], Record<string, string>, RegExp]>([
  ['another token', [], { VARIATOR_JOIN_TOKEN: `${token}!` }, /has another join token/],
  ['no token', [], {}, /needs the token of the gateway it joins in VARIATOR_JOIN_TOKEN/],
  ['a short token', [], { VARIATOR_JOIN_TOKEN: 'short' }, /at least 32 characters/],
  ['no address', ['--join', 'nowhere'], { VARIATOR_JOIN_TOKEN: token }, /must be HOST:PORT/],
])('with %s it says so and ends', async (_what, flags, env, sentence) => {
  const worker = command(['--join', address(), ...flags], env);
  expect(await worker.exited).toBe(1);
  expect(worker.output()).toMatch(sentence);
  expect(worker.output()).not.toContain(token);
});

it('while no gateway listens it tries again, and joins the one that comes', async () => {
  const port = fleet.joinPort() ?? 0;
  const worker = command(['--join', `127.0.0.1:${port}`, '--worker-id', 'patient'], {
    VARIATOR_JOIN_TOKEN: token,
  });
  await fleet.close();
  await until(() => /(cannot join|lost) the gateway at .*; trying again/.test(worker.output()));
  fleet = workerFleet({
    linkPath: join(folder, 'link.sock'),
    joining: { host: '127.0.0.1', port, token },
    model: null,
    now: () => performance.timeOrigin + performance.now(),
    log: (line) => logged.push(line),
    onRows: () => {},
    pathFor: () => null,
  });
  await fleet.listen();
  await until(() => fleet.workers().length === 1);
  expect((await readStream(fleet.submit(specOf('late', prompt, 20), 0))).tokenIds).toHaveLength(20);
  worker.child.kill('SIGTERM');
  expect(await worker.exited).toBe(0);
});
