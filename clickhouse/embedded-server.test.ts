import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, statSync } from 'node:fs';
import { mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { buildClickHouseHost } from './build.mjs';
import { createTelemetryClient, QueryError } from './client.ts';
import { EmbeddedServerError, startEmbeddedServer } from './embedded-server.ts';
import { startTestServer, type TestServer } from './rows.fixture.ts';

let test1: TestServer;
beforeAll(async () => {
  test1 = await startTestServer();
});
afterAll(() => test1.remove());

const isAlive = (pid: number): boolean => {
  try {
    process.kill(pid, 0);
    return true;
  } catch {
    return false;
  }
};

async function untilGone(pid: number): Promise<boolean> {
  for (let attempt = 0; attempt < 200 && isAlive(pid); attempt += 1) await sleep(25);
  return !isAlive(pid);
}

test('the writer makes tables and rows; nobody reads files, fetches URLs or stops the server; the reader only reads', async () => {
  const writer = createTelemetryClient(test1.server.url);
  const reader = createTelemetryClient(test1.server.readUrl);
  await writer.command('CREATE DATABASE IF NOT EXISTS variator', { isDatabaseless: true });
  await writer.command('CREATE TABLE grants (a Int32) ENGINE = MergeTree ORDER BY a');
  await writer.insert('grants', [{ a: 1 }], 'first');
  const count = z.object({ n: z.number() });
  expect(await reader.query('SELECT count() AS n FROM grants', {}, count)).toEqual([{ n: 1 }]);

  const refusals: [string, () => Promise<unknown>][] = [
    ['reader inserts', () => reader.insert('grants', [{ a: 2 }], 'second')],
    ['reader drops', () => reader.command('DROP TABLE grants')],
    ['reader leaves readonly', () => reader.command('SELECT 1 SETTINGS readonly = 0')],
    ['writer makes another database', () => writer.command('CREATE DATABASE other')],
  ];
  for (const client of [reader, writer]) {
    refusals.push(
      ['file()', () => client.command("SELECT * FROM file('/etc/passwd', 'LineAsString', 'l String')")],
      ['url()', () => client.command("SELECT * FROM url('http://127.0.0.1/', 'LineAsString', 'l String')")],
      ['listen', () => client.command('SYSTEM STOP LISTEN HTTP')],
    );
  }
  for (const [what, attempt] of refusals) {
    const error = await attempt().catch((caught: unknown) => caught);
    expect(error, what).toBeInstanceOf(QueryError);
    expect(['497', '164'], what).toContain((error as QueryError).code);
  }
  expect(await reader.query('SELECT count() AS n FROM grants', {}, count)).toEqual([{ n: 1 }]);
  await Promise.all([writer.close(), reader.close()]);
});

test('without its credentials the server answers nothing but a ping', async () => {
  const origin = `http://127.0.0.1:${test1.server.port}`;
  const basic = (user: string, password: string): RequestInit => ({
    headers: { authorization: `Basic ${Buffer.from(`${user}:${password}`).toString('base64')}` },
  });
  expect((await fetch(`${origin}/ping`)).status).toBe(200);
  for (const path of ['/?query=SELECT%201', '/play', '/dashboard', '/?user=default&query=SELECT%201']) {
    expect((await fetch(`${origin}${path}`)).status, path).toBe(404);
  }
  expect((await fetch(`${origin}/?query=SELECT%201`, basic('default', ''))).status).toBe(404);
  expect((await fetch(`${origin}/?query=SELECT%201`, basic('reader', 'guess'))).status).toBe(404);
});

test('its secrets are files that only their owner reads', () => {
  for (const name of ['credentials.json', 'users.xml', 'config.xml']) {
    expect(statSync(join(test1.dataDir, name)).mode & 0o777, name).toBe(0o600);
  }
  expect(statSync(test1.dataDir).mode & 0o777).toBe(0o700);
  const { password } = new URL(test1.server.url);
  expect(readFileSync(join(test1.dataDir, 'users.xml'), 'utf8')).not.toContain(password);
});

test('a second server on the same folder, a taken port and damaged credentials are each refused in a sentence', async () => {
  await expect(startEmbeddedServer({ dataDir: test1.dataDir })).rejects.toThrow(
    /Another ClickHouse already runs on .*--data/,
  );
  const dataDir = await mkdtemp(join(tmpdir(), 'variator-clickhouse-'));
  const taken = createServer().listen(0, '127.0.0.1');
  await once(taken, 'listening');
  const address = taken.address();
  const port = typeof address === 'object' && address ? address.port : 0;
  await expect(startEmbeddedServer({ dataDir, port })).rejects.toThrow(`Port ${port} of 127.0.0.1 is taken`);
  taken.close();
  await writeFile(join(dataDir, 'credentials.json'), '{"writerPassword":"x"}');
  await expect(startEmbeddedServer({ dataDir })).rejects.toThrow(EmbeddedServerError);
  await rm(dataDir, { recursive: true, force: true });
});

test('after a kill it starts again on its folder with the same address and passwords, and nothing is lost', async () => {
  const dataDir = await mkdtemp(join(tmpdir(), "variator's 'variator-clickhouse-' <clickhouse> ü-"));
  const deaths: number[] = [];
  const first = await startEmbeddedServer({ dataDir, onExit: (code) => deaths.push(code) });
  const client = createTelemetryClient(first.url);
  await client.command('CREATE DATABASE variator', { isDatabaseless: true });
  await client.command(
    'CREATE TABLE t (a Int32) ENGINE = MergeTree ORDER BY a SETTINGS non_replicated_deduplication_window = 100',
  );
  await client.insert('t', [{ a: 1 }, { a: 2 }], 'token');
  process.kill(first.pid, 'SIGKILL');
  expect(await first.exited).toBe(137);
  expect(deaths).toEqual([137]);

  const second = await startEmbeddedServer({ dataDir, port: first.port });
  expect(second.url).toBe(first.url);
  await client.insert('t', [{ a: 1 }, { a: 2 }], 'token');
  expect(await client.query('SELECT count() AS n FROM t', {}, z.object({ n: z.number() }))).toEqual([
    { n: 2 },
  ]);
  await client.close();
  await second.stop();
  expect(await second.exited).toBe(0);
  expect(isAlive(second.pid)).toBe(false);
  await rm(dataDir, { recursive: true, force: true });
});

test('when its parent is killed, the server is gone too', async () => {
  await buildClickHouseHost();
  const dataDir = await mkdtemp(join(tmpdir(), 'variator-clickhouse-'));
  const module = JSON.stringify(fileURLToPath(new URL('embedded-server.ts', import.meta.url)));
  const parent = spawn(
    process.execPath,
    [
      '--import',
      'tsx',
      '--input-type=module',
      '--eval',
      `const { startEmbeddedServer } = await import(${module});
       const server = await startEmbeddedServer({ dataDir: ${JSON.stringify(dataDir)} });
       console.log(server.pid);
       setInterval(() => {}, 1000);`,
    ],
    { stdio: ['ignore', 'pipe', 'inherit'] },
  );
  const [said] = (await once(parent.stdout, 'data')) as [Buffer];
  const pid = Number(said.toString());
  expect(isAlive(pid)).toBe(true);
  parent.kill('SIGKILL');
  expect(await untilGone(pid)).toBe(true);
  await rm(dataDir, { recursive: true, force: true });
});
