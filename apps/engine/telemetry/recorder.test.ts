import { mkdtemp, rm } from 'node:fs/promises';
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
  const recorder = createRecorder({ client, bootId: 'both', flushMs: 20, log: (line) => lines.push(line) });
  recordSteps(recorder, 'both', 0, 10);
  recorder.record('requests', requestRow({ arrivedAt: startedAt, requestId: 'both' }));
  expect(recorder.pendingRowCount()).toBe(11);
  expect(await recorder.close(10_000)).toEqual({ unsentRowCount: 0 });
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
  const recorder = createRecorder({ client, bootId: 'kill', flushMs: 10, log: () => {} });
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
  const recorder = createRecorder({ client: forgetful, bootId: 'ack', flushMs: 10, log: () => {} });
  recordSteps(recorder, 'ack', 0, 50);
  await until(() => lostAcknowledgements === 0);
  recordSteps(recorder, 'ack', 50, 50);
  await recorder.close(10_000);
  expect(await stored('ack')).toEqual({ rows: 100, steps: 100 });
});

test('rows that ClickHouse cannot take are dropped and counted; their neighbours are stored', async () => {
  const lines: string[] = [];
  const recorder = createRecorder({ client, bootId: 'bad', flushMs: 10, log: (line) => lines.push(line) });
  recordSteps(recorder, 'bad', 0, 20);
  recorder.record('steps', stepRow({ bootId: 'bad', stepId: 900, startedAt, deviceMs: Number.NaN }));
  recorder.record('steps', stepRow({ bootId: 'bad', stepId: 901, startedAt: Number.NaN }));
  recordSteps(recorder, 'bad', 20, 20);
  await recorder.close(10_000);
  expect(await stored('bad')).toEqual({ rows: 40, steps: 40 });
  expect(recorder.droppedRowCount()).toBe(2);
  expect(lines.filter((line) => line.includes('refused a row of steps'))).toHaveLength(2);
});

test('without ClickHouse it keeps the oldest rows up to its bound, counts the rest, and closes in time', async () => {
  const nobody = createTelemetryClient('http://127.0.0.1:9/variator');
  const lines: string[] = [];
  const recorder = createRecorder({
    client: nobody,
    bootId: 'bound',
    flushMs: 10,
    maxBufferedRows: 100,
    log: (line) => lines.push(line),
  });
  recordSteps(recorder, 'bound', 0, 150);
  expect([recorder.pendingRowCount(), recorder.droppedRowCount()]).toEqual([100, 50]);
  await until(() => recorder.fault() !== '');
  expect(recorder.fault()).toMatch(/ClickHouse does not answer.*100 rows wait/);
  expect(await recorder.close(300)).toEqual({ unsentRowCount: 100 });
  expect(recorder.droppedRowCount()).toBe(150);
  recordSteps(recorder, 'bound', 150, 1);
  expect(recorder.droppedRowCount()).toBe(151);
  expect(lines).toHaveLength(2);
  await nobody.close();
});
