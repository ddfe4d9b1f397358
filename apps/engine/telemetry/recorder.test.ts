import { execFileSync, spawn } from 'node:child_process';
import { appendFile, mkdir, mkdtemp, readdir, readFile, rm, statfs, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildClickHouseHost } from '@variator/clickhouse/build';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { type EmbeddedServer, startEmbeddedServer } from '@variator/clickhouse/embedded-server';
import { requestRow, stepRow } from '@variator/clickhouse/rows.fixture';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { createRecorder, type Recorder } from './recorder.ts';

let dataDir: string;
let server: EmbeddedServer;
let client: TelemetryClient;
beforeAll(async () => {
  await buildClickHouseHost();
  dataDir = await mkdtemp(join(tmpdir(), 'variator-recorder-'));
  server = await startEmbeddedServer({ dataDir });
  client = createTelemetryClient(server.url);
});
afterAll(async () => {
  await client.close();
  await server.stop();
  await rm(dataDir, { recursive: true, force: true });
});

const startedAt = Date.now() - 3_600_000;
const folderOf = (name: string): string => join(dataDir, `spool-${name}`);

async function until(condition: () => boolean): Promise<void> {
  for (let attempt = 0; attempt < 1000 && !condition(); attempt += 1) await sleep(20);
  expect(condition()).toBe(true);
}

async function stored(bootId: string): Promise<{ rows: number; steps: number }> {
  const [counts] = await client.query(
    'SELECT count() AS rows, uniqExact(stepId) AS steps FROM steps WHERE bootId = {bootId:String}',
    { bootId },
    z.object({ rows: z.number(), steps: z.number() }),
  );
  return counts ?? { rows: -1, steps: -1 };
}

function recordSteps(recorder: Recorder, bootId: string, from: number, count: number): void {
  for (let stepId = from; stepId < from + count; stepId += 1) {
    recorder.record('steps', stepRow({ bootId, stepId, startedAt: startedAt + stepId }));
  }
}

test('it makes the tables itself, and rows arrive in both of them', async () => {
  const lines: string[] = [];
  const recorder = createRecorder({
    client,
    folder: folderOf('both'),
    bootId: 'both',
    flushMs: 20,
    log: (line) => lines.push(line),
  });
  recordSteps(recorder, 'both', 0, 10);
  recorder.record('requests', requestRow({ arrivedAt: startedAt, requestId: 'both' }));
  expect(recorder.pendingRowCount()).toBe(11);
  expect(await recorder.close(10_000)).toEqual({ unsentRowCount: 0, keptRowCount: 0 });
  expect(await readdir(folderOf('both'))).toEqual([]);
  expect(await stored('both')).toEqual({ rows: 10, steps: 10 });
  expect(
    await client.query(
      "SELECT requestId FROM requests WHERE requestId = 'both'",
      {},
      z.object({ requestId: z.string() }),
    ),
  ).toHaveLength(1);
  expect([recorder.droppedRowCount(), recorder.pendingRowCount(), recorder.fault(), lines.length]).toEqual([
    0,
    0,
    '',
    0,
  ]);
});

test('ClickHouse is killed four times under load: every row is there, none twice', async () => {
  const recorder = createRecorder({
    client,
    folder: folderOf('kill'),
    bootId: 'kill',
    flushMs: 10,
    log: () => {},
  });
  let sent = 0;
  for (let round = 0; round < 4; round += 1) {
    for (let burst = 0; burst < 20; burst += 1) {
      recordSteps(recorder, 'kill', sent, 100);
      sent += 100;
      // Killed in the middle of a burst, with inserts under way.
      if (burst === 10) process.kill(server.pid, 'SIGKILL');
      await sleep(5);
    }
    await server.exited;
    await until(() => recorder.fault() !== '');
    server = await startEmbeddedServer({ dataDir, port: server.port });
  }
  await until(() => recorder.pendingRowCount() === 0);
  expect(recorder.fault()).toBe('');
  await recorder.close(10_000);
  expect(await stored('kill')).toEqual({ rows: sent, steps: sent });
  expect(recorder.droppedRowCount()).toBe(0);
});

test('an insert that was stored but never acknowledged is not stored again', async () => {
  let lostAcknowledgements = 2;
  const forgetful: TelemetryClient = {
    ...client,
    async insert(table, rows, token) {
      await client.insert(table, rows, token);
      if (table === 'steps' && lostAcknowledgements > 0) {
        lostAcknowledgements -= 1;
        throw new Error('socket hang up');
      }
    },
  };
  const recorder = createRecorder({
    client: forgetful,
    folder: folderOf('ack'),
    bootId: 'ack',
    flushMs: 10,
    log: () => {},
  });
  recordSteps(recorder, 'ack', 0, 50);
  await until(() => lostAcknowledgements === 0);
  recordSteps(recorder, 'ack', 50, 50);
  await recorder.close(10_000);
  expect(await stored('ack')).toEqual({ rows: 100, steps: 100 });
});

test('rows that ClickHouse cannot take are dropped and counted; their neighbours are stored', async () => {
  const lines: string[] = [];
  const recorder = createRecorder({
    client,
    folder: folderOf('bad'),
    bootId: 'bad',
    flushMs: 10,
    log: (line) => lines.push(line),
  });
  recordSteps(recorder, 'bad', 0, 20);
  recorder.record('steps', stepRow({ bootId: 'bad', stepId: 900, startedAt, deviceMs: Number.NaN }));
  recorder.record('steps', stepRow({ bootId: 'bad', stepId: 901, startedAt: Number.NaN }));
  recordSteps(recorder, 'bad', 20, 20);
  await recorder.close(10_000);
  expect(await stored('bad')).toEqual({ rows: 40, steps: 40 });
  expect(recorder.droppedRowCount()).toBe(2);
  expect(lines.filter((line) => line.includes('refused a row of steps'))).toHaveLength(2);
});

test('without ClickHouse rows stay on the disk, and the next start stores them, each once', async () => {
  const nobody = createTelemetryClient('http://127.0.0.1:9/variator');
  const lines: string[] = [];
  const log = (line: string) => lines.push(line);
  const folder = folderOf('away');
  const away = createRecorder({
    client: nobody,
    folder,
    bootId: 'away',
    flushMs: 10,
    maxBufferedRows: 400,
    log,
  });
  // More than memory may hold: what is on the disk is read back when its turn comes.
  for (let sent = 0; sent < 1000; sent += 100) {
    recordSteps(away, 'away', sent, 100);
    await until(() => away.pendingRowCount() === sent + 100);
    await sleep(120);
  }
  expect(away.fault()).toMatch(/ClickHouse does not answer.*1000 rows wait/);
  expect(await away.close(300)).toEqual({ unsentRowCount: 0, keptRowCount: 1000 });
  expect(away.droppedRowCount()).toBe(0);
  recordSteps(away, 'away', 1000, 1);
  expect(away.droppedRowCounts()).toEqual({ 'steps/closed': 1 });
  await nobody.close();

  const back = createRecorder({ client, folder, bootId: 'back', flushMs: 10, log });
  recordSteps(back, 'away', 1000, 10);
  expect(await back.close(10_000)).toEqual({ unsentRowCount: 0, keptRowCount: 0 });
  expect(await stored('away')).toEqual({ rows: 1010, steps: 1010 });
  expect(await readdir(folder)).toEqual([]);
  expect(lines).toContain('telemetry: 1000 rows of an earlier start wait on the spool');
});

test('over its bounds it drops the newest rows, and counts them by table and reason', async () => {
  const nobody = createTelemetryClient('http://127.0.0.1:9/variator');
  const common = { client: nobody, flushMs: 10, log: () => {} };
  const small = createRecorder({
    ...common,
    folder: folderOf('small'),
    bootId: 'small',
    maxSpoolBytes: 100_000,
  });
  for (let sent = 0; sent < 400; sent += 20) {
    recordSteps(small, 'small', sent, 20);
    await sleep(60);
  }
  await small.close(200);
  const { 'steps/spoolFull': overDisk = 0 } = small.droppedRowCounts();
  expect(overDisk).toBeGreaterThan(0);
  expect(overDisk + small.pendingRowCount()).toBe(400);

  const burst = createRecorder({
    ...common,
    folder: folderOf('burst'),
    bootId: 'burst',
    maxBufferedRows: 100,
  });
  recordSteps(burst, 'burst', 0, 150);
  expect(burst.droppedRowCounts()).toEqual({ 'steps/memoryFull': 50 });
  expect(await burst.close(200)).toEqual({ unsentRowCount: 0, keptRowCount: 100 });
  await nobody.close();
});

test('a torn tail and a damaged line are left out and counted; the rows beside them are stored', async () => {
  const nobody = createTelemetryClient('http://127.0.0.1:9/variator');
  const folder = folderOf('torn');
  const first = createRecorder({ client: nobody, folder, bootId: 'torn', flushMs: 10_000, log: () => {} });
  recordSteps(first, 'torn', 0, 20);
  await first.close(100);
  await nobody.close();
  const [name = ''] = await readdir(folder);
  const text = await readFile(join(folder, name), 'utf8');
  await writeFile(join(folder, name), text.replace('"stepId":7,', '"stepId":8,'));
  await appendFile(join(folder, name), text.slice(0, 300));
  await writeFile(join(folder, 'a stranger'), 'is left alone');
  const second = createRecorder({ client, folder, bootId: 'torn-2', flushMs: 10, log: () => {} });
  await second.close(10_000);
  expect(await stored('torn')).toEqual({ rows: 19, steps: 19 });
  expect(second.droppedRowCounts()).toEqual({ 'steps/damaged': 2 });
  expect(await readdir(folder)).toEqual(['a stranger']);
});

test('where nothing can be written rows go on from memory, and it says so', async () => {
  // A file where the folder should be: every write fails as on a disk that is gone.
  await mkdir(dataDir, { recursive: true });
  await writeFile(folderOf('gone'), '');
  const recorder = createRecorder({
    client,
    folder: folderOf('gone'),
    bootId: 'gone',
    flushMs: 10,
    log: () => {},
  });
  recordSteps(recorder, 'gone', 0, 100);
  await until(() => recorder.pendingRowCount() === 0);
  expect(recorder.fault()).toMatch(/^rows cannot be kept on the disk: /);
  await recorder.close(5000);
  expect(await stored('gone')).toEqual({ rows: 100, steps: 100 });
  expect(recorder.droppedRowCount()).toBe(0);
});

test('on a full disk rows go on from memory; with room again they are on the disk', async ({ skip }) => {
  const disk = folderOf('full');
  await mkdir(disk);
  try {
    execFileSync('mount', ['-t', 'tmpfs', '-o', 'size=1m', 'none', disk], { stdio: 'ignore' });
  } catch {
    console.warn('SKIPPED: a full disk needs the right to mount a tmpfs');
    skip();
  }
  try {
    const log = () => {};
    const recorder = createRecorder({
      client,
      folder: join(disk, 'spool'),
      bootId: 'full',
      flushMs: 50,
      log,
    });
    recordSteps(recorder, 'full', 0, 10);
    await until(() => recorder.pendingRowCount() === 0);
    const { bavail, bsize } = await statfs(disk);
    await writeFile(join(disk, 'ballast'), Buffer.alloc(bavail * bsize));
    recordSteps(recorder, 'full', 10, 500);
    await until(() => recorder.fault() !== '');
    expect(recorder.fault()).toMatch(/^rows cannot be kept on the disk: .*ENOSPC/);
    await rm(join(disk, 'ballast'));
    await until(() => recorder.pendingRowCount() === 0);
    recordSteps(recorder, 'full', 510, 10);
    await until(() => recorder.fault() === '');
    await recorder.close(10_000);
    expect(recorder.droppedRowCount()).toBe(0);
    expect(await stored('full')).toEqual({ rows: 520, steps: 520 });
  } finally {
    execFileSync('umount', ['-l', disk]);
  }
});

test('a process that is killed while it records loses nothing older than a commit, and doubles nothing', async () => {
  const folder = folderOf('killed');
  let told = 0;
  for (let round = 0; round < 3; round += 1) {
    const writer = spawn(
      process.execPath,
      [
        '--import',
        'tsx',
        new URL('recorder-writer.fixture.ts', import.meta.url).pathname,
        folder,
        String(told),
        server.url,
      ],
      { stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const ended = new Promise<void>((resolve) => writer.once('close', () => resolve()));
    let toldNow = told;
    writer.stdout.on('data', (data: Buffer) => {
      toldNow = Number(data.toString().trim().split('\n').at(-1));
    });
    await until(() => toldNow >= told + 1500);
    writer.kill('SIGKILL');
    await ended;
    // Rows recorded after the last line was told may or may not be there: the next round begins well behind them.
    const durable = toldNow;
    told = durable + 10_000;
    const heir = createRecorder({ client, folder, bootId: `heir-${round}`, flushMs: 10, log: () => {} });
    await heir.close(10_000);
    const [counts] = await client.query(
      `SELECT count() AS rows, uniqExact(stepId) AS steps, countIf(stepId < {durable:UInt64} AND stepId >= {from:UInt64}) AS durable
       FROM steps WHERE bootId = 'killed'`,
      { durable, from: durable - 1500 },
      z.object({ rows: z.number(), steps: z.number(), durable: z.number() }),
    );
    expect(counts?.durable).toBe(1500);
    expect(counts?.rows).toBe(counts?.steps);
    expect(heir.droppedRowCount()).toBeLessThanOrEqual(1);
  }
});
