/**
 * The record under load and under faults: rows a second through the recorder into the embedded ClickHouse, ClickHouse killed
 * twenty times, away for five minutes, and the recording process killed. After each: is every row there, and once? And
 * after all of it: do the sums by hour, filled along the way, count the same rows?
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { buildClickHouseHost } from '@variator/clickhouse/build';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { type EmbeddedServer, startEmbeddedServer } from '@variator/clickhouse/embedded-server';
import { requestRow, stepRow } from '@variator/clickhouse/rows.fixture';
import { z } from 'zod';
import { createRecorder, type Recorder } from '../../../apps/engine/telemetry/recorder.ts';
import { root } from '../../running-product.ts';
import type { Figure } from '../figure.ts';

const SUSTAINED_PER_SECOND = 22_000;
const SUSTAINED_MS = 20_000;
const KILL_COUNT = 20;
const KILL_EVERY_MS = 1500;
const KILL_PER_SECOND = 3000;
const OUTAGE_MS = 300_000;
const OUTAGE_PER_SECOND = 1000;
const WRITER_KILLS = 10;
const TICK_MS = 10;
/** One row in so many is a request's, the others are steps'. */
const STEPS_PER_REQUEST = 9;
const SETTLE_LIMIT_MS = 300_000;

interface Store {
  server: EmbeddedServer;
  readonly client: TelemetryClient;
  readonly folder: string;
}

export async function benchStore(): Promise<readonly Figure[]> {
  await buildClickHouseHost();
  const folder = mkdtempSync(join(tmpdir(), 'variator-store-'));
  const server = await startEmbeddedServer({ dataDir: join(folder, 'clickhouse') });
  const store: Store = { server, client: createTelemetryClient(server.url), folder };
  try {
    const sustained = await sustain(store);
    const killed = await killClickHouse(store);
    const away = await outage(store);
    const writers = await killWriters(store);
    return [sustained, killed, ...away, writers, await hoursAgainstRows(store)];
  } finally {
    await store.client.close();
    await store.server.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

const recorderFor = (store: Store, bootId: string): Recorder =>
  createRecorder({ client: store.client, folder: join(store.folder, 'spool'), bootId, log: () => {} });

/** Records at a steady rate; resolves with how many rows, when the time is over. */
async function load(
  recorder: Recorder,
  bootId: string,
  perSecond: number,
  forMs: number,
  from = 0,
): Promise<number> {
  const startedAt = performance.now();
  const epoch = Date.now();
  let made = 0;
  for (let elapsed = 0; elapsed < forMs; elapsed = performance.now() - startedAt) {
    const due = Math.floor((elapsed / 1000) * perSecond);
    for (; made < due; made += 1) {
      const stepId = from + made;
      const at = epoch + elapsed;
      if (made % (STEPS_PER_REQUEST + 1) === 0) {
        recorder.record('requests', requestRow({ requestId: `${bootId}-${stepId}`, arrivedAt: at }));
      } else {
        recorder.record('steps', stepRow({ bootId, stepId, startedAt: at }));
      }
    }
    await pause(TICK_MS);
  }
  return made;
}

async function settled(recorder: Recorder): Promise<void> {
  const deadline = performance.now() + SETTLE_LIMIT_MS;
  while (recorder.pendingRowCount() > 0 && performance.now() < deadline) await pause(20);
}

async function storedOf(client: TelemetryClient, bootId: string): Promise<{ rows: number; unique: number }> {
  const sql = `SELECT sum(rows) AS rows, sum(unique) AS unique FROM (
      SELECT count() AS rows, uniqExact(stepId) AS unique FROM steps WHERE bootId = {bootId:String}
      UNION ALL SELECT count() AS rows, uniqExact(requestId) AS unique FROM requests WHERE startsWith(requestId, {prefix:String}))`;
  const [counts] = await client.query(
    sql,
    { bootId, prefix: `${bootId}-` },
    z.object({ rows: z.number(), unique: z.number() }),
  );
  return counts ?? { rows: -1, unique: -1 };
}

async function hoursAgainstRows({ client }: Store): Promise<Figure> {
  const sql = `SELECT
      (SELECT count() FROM requests) + (SELECT count() FROM steps) AS rows,
      (SELECT sum(requestCount) FROM requests_hourly) + (SELECT sum(stepCount) FROM steps_hourly) AS hours,
      (SELECT count() FROM requests) AS requests,
      (SELECT sum(requestCount) FROM tenants_hourly) AS tenants`;
  const counts = z.object({ rows: z.number(), hours: z.number(), requests: z.number(), tenants: z.number() });
  const [found] = await client.query(sql, {}, counts);
  return {
    figure: 'rows counted by hour and by tenant after all of this, against the rows',
    goal: 'the same',
    measured: found === undefined ? 'none' : `${found.hours.toLocaleString('en')}`,
    interval: `${found?.rows.toLocaleString('en')} rows; ${found?.tenants.toLocaleString('en')} requests by tenant of ${found?.requests.toLocaleString('en')}`,
    isMet: found !== undefined && found.hours === found.rows && found.tenants === found.requests,
  };
}

async function sustain(store: Store): Promise<Figure> {
  const recorder = recorderFor(store, 'sustain');
  const startedAt = performance.now();
  const made = await load(recorder, 'sustain', SUSTAINED_PER_SECOND, SUSTAINED_MS);
  const behind = recorder.pendingRowCount();
  await settled(recorder);
  const seconds = (performance.now() - startedAt) / 1000;
  await recorder.close(10_000);
  const { rows, unique } = await storedOf(store.client, 'sustain');
  const perSecond = rows / seconds;
  return {
    figure: 'rows a second through the recorder, each stored once',
    goal: '>= 20,000',
    measured: Math.round(perSecond).toLocaleString('en'),
    interval: `${rows.toLocaleString('en')} of ${made.toLocaleString('en')} rows, ${unique - rows} twice, ${behind.toLocaleString('en')} waited at the end of ${SUSTAINED_MS / 1000} s, ${recorder.droppedRowCount()} dropped`,
    isMet: perSecond >= 20_000 && rows === made && unique === made,
  };
}

async function killClickHouse(store: Store): Promise<Figure> {
  const recorder = recorderFor(store, 'kills');
  const loading = load(recorder, 'kills', KILL_PER_SECOND, (KILL_COUNT + 1) * KILL_EVERY_MS);
  for (let kill = 0; kill < KILL_COUNT; kill += 1) {
    await pause(KILL_EVERY_MS);
    process.kill(store.server.pid, 'SIGKILL');
    await store.server.exited;
    store.server = await startEmbeddedServer({
      dataDir: join(store.folder, 'clickhouse'),
      port: store.server.port,
    });
  }
  const made = await loading;
  await settled(recorder);
  await recorder.close(10_000);
  const { rows, unique } = await storedOf(store.client, 'kills');
  return exactlyOnce(
    `${KILL_COUNT} SIGKILLs of ClickHouse under ${KILL_PER_SECOND} rows/s`,
    made,
    rows,
    unique,
    recorder,
  );
}

async function outage(store: Store): Promise<Figure[]> {
  const recorder = recorderFor(store, 'outage');
  await store.server.stop();
  const made = await load(recorder, 'outage', OUTAGE_PER_SECOND, OUTAGE_MS);
  store.server = await startEmbeddedServer({
    dataDir: join(store.folder, 'clickhouse'),
    port: store.server.port,
  });
  const backAt = performance.now();
  await settled(recorder);
  const catchUp = made / ((performance.now() - backAt) / 1000);
  await recorder.close(10_000);
  const { rows, unique } = await storedOf(store.client, 'outage');
  return [
    exactlyOnce(
      `${OUTAGE_MS / 60_000} minutes without ClickHouse at ${OUTAGE_PER_SECOND} rows/s`,
      made,
      rows,
      unique,
      recorder,
    ),
    {
      figure: 'catching up afterwards, against the rate of the outage',
      goal: '>= 5x',
      measured: `${(catchUp / OUTAGE_PER_SECOND).toFixed(1)}x`,
      interval: `${Math.round(catchUp).toLocaleString('en')} rows/s, back-off included`,
      isMet: catchUp >= 5 * OUTAGE_PER_SECOND,
    },
  ];
}

/** The process that records is killed; the next start finds what it left. Rows told to be older than two commits must be there. */
async function killWriters(store: Store): Promise<Figure> {
  const folder = join(store.folder, 'spool-of-writers');
  let from = 0;
  let missing = 0;
  let durableRows = 0;
  for (let round = 0; round < WRITER_KILLS; round += 1) {
    const first = from;
    const writer = spawn(
      process.execPath,
      [
        '--import',
        'tsx',
        'apps/engine/telemetry/recorder-writer.fixture.ts',
        folder,
        String(first),
        store.server.url,
      ],
      { cwd: root, stdio: ['ignore', 'pipe', 'inherit'] },
    );
    const ended = new Promise<void>((resolve) => writer.once('close', () => resolve()));
    let told = first;
    writer.stdout.on('data', (data: Buffer) => {
      told = Number(data.toString().trim().split('\n').at(-1));
    });
    while (told < first + 2000) await pause(20);
    writer.kill('SIGKILL');
    await ended;
    from = told + 100_000;
    const next = createRecorder({ client: store.client, folder, bootId: `next-${round}`, log: () => {} });
    await next.close(30_000);
    const [found] = await store.client.query(
      `SELECT count() AS count FROM steps WHERE bootId = 'killed' AND stepId >= {first:UInt64} AND stepId < {told:UInt64}`,
      { first, told },
      z.object({ count: z.number() }),
    );
    durableRows += told - first;
    missing += told - first - (found?.count ?? 0);
  }
  const { rows, unique } = await storedOf(store.client, 'killed');
  return {
    figure: `${WRITER_KILLS} SIGKILLs of the recording process: rows missing / twice after the next start`,
    goal: '0 / 0',
    measured: `${missing} / ${rows - unique}`,
    interval: `${durableRows.toLocaleString('en')} rows recorded at least 0.4 s before a kill`,
    isMet: missing === 0 && rows === unique,
  };
}

function exactlyOnce(name: string, made: number, rows: number, unique: number, recorder: Recorder): Figure {
  return {
    figure: `${name}: rows missing / twice`,
    goal: '0 / 0',
    measured: `${made - unique} / ${rows - unique}`,
    interval: `${made.toLocaleString('en')} rows, ${recorder.droppedRowCount()} dropped`,
    isMet: unique === made && rows === made,
  };
}
