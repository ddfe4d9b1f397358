import { cp, mkdtemp, readdir, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { createTelemetryClient, QueryError, type TelemetryClient } from './client.ts';
import { type EmbeddedServer, startEmbeddedServer } from './embedded-server.ts';
import { encodeRow, insertRows, type TableRows } from './insert.ts';
import { migrate, readMigrations } from './migrate.ts';
import { costSummary } from './queries/cost-summary.ts';
import { type OverviewPoint, overviewSeries } from './queries/overview-series.ts';
import { overviewSummary } from './queries/overview-summary.ts';
import { pathSpans } from './queries/path-spans.ts';
import { HOUR_MS } from './queries/source-of.ts';
import { type TenantUsage, tenantUsage } from './queries/tenant-usage.ts';
import { renderStatement } from './render-statement.ts';
import { requestRow, startTestServer, stepRow, type TestServer } from './rows.fixture.ts';

const DAY_MS = 24 * HOUR_MS;
const now = Date.now();
/** Three whole days, so that hours have them, and each of them is short enough for the rows. */
const span = { fromMs: Math.floor(now / DAY_MS - 4) * DAY_MS, toMs: Math.floor(now / DAY_MS - 1) * DAY_MS };
const days = [0, 1, 2].map((day) => ({
  fromMs: span.fromMs + day * DAY_MS,
  toMs: span.fromMs + (day + 1) * DAY_MS,
}));
const usdPerHour = 3.6;

/** The same at every run; even over [0, 1). */
const even = (index: number): number => (index * 0.618_033_988_749_895) % 1;
const pick = <Choice>(choices: readonly Choice[], index: number): Choice =>
  choices[Math.floor(even(index) * choices.length)] as Choice;

const outcomes = {
  stop: 'ok',
  length: 'ok',
  cancelled: 'cancelled',
  expired: 'expired',
  error: 'failed',
  '': 'refused',
} as const;

/** Milliseconds are multiples of 1/64, so that sums are the same in whatever order. */
const requests = Array.from({ length: 6000 }, (_, index) => {
  const isRefused = index >= 3000 && index % 10 === 0;
  const finishReason = isRefused
    ? ''
    : pick(['stop', 'length', 'stop', 'cancelled', 'error', 'expired'] as const, index * 7);
  return requestRow({
    requestId: `r${index}`,
    // Up to an hour before it ends, which is what counts.
    arrivedAt: span.fromMs - HOUR_MS / 2 + Math.floor(even(index) * (3 * DAY_MS + HOUR_MS)),
    e2eMs: Math.floor(even(index * 3) * HOUR_MS) + 0.5,
    tenant: pick(['ada', 'bob', 'eve'], index * 5),
    serviceTier: pick(['priority', 'default', 'flex'] as const, index * 11),
    isStreamed: index % 4 !== 0,
    finishReason,
    outcome: outcomes[finishReason],
    promptTokenCount: index % 900,
    cachedTokenCount: index % 100,
    completionTokenCount: index % 50,
    ttftMs: index % 9 === 0 ? 0 : 20 + 400 * even(index * 13) ** 3,
    tpotMs: 5 + 20 * even(index * 17),
    prefillDeviceMs: (index % 640) / 64,
    decodeDeviceMs: (index % 6400) / 64,
    recomputeDeviceMs: (index % 3) / 64,
    ttftObjectiveMs: index % 4 === 0 ? 0 : 2000,
    isWithinObjectives: index % 5 !== 0,
    ...(isRefused ? { ttftMs: 0, promptTokenCount: 0, completionTokenCount: 0 } : {}),
  });
});
const steps = Array.from({ length: 9000 }, (_, index) => {
  const isPrefill = index % 8 === 0;
  const itlTokenCount = index % 6;
  return stepRow({
    stepId: index,
    startedAt: span.fromMs + even(index) * 3 * DAY_MS,
    kind: pick(['serve', 'serve', 'serve', 'calibration', 'check'] as const, index * 7),
    pathId: even(index) < 0.5 ? 'pathA' : 'pathB',
    prefillTokenCount: isPrefill ? 64 : 0,
    cachedTokenCount: isPrefill ? index % 32 : 0,
    emittedTokenCount: itlTokenCount,
    itlTokenCount,
    itlMeanMs: itlTokenCount === 0 ? 0 : 4 + 60 * even(index * 3) ** 2,
    deviceMs: (index % 512) / 64,
    prefillDeviceMs: isPrefill ? 2 : 0,
    recomputeDeviceMs: index % 16 === 0 ? 2 : 0,
    decodeDeviceMs: (index % 256) / 64,
  });
});

let running: TestServer;
let server: EmbeddedServer;
let client: TelemetryClient;

/** Rows with the columns that their table has so far: later migrations add others. */
async function asBefore<Table extends 'requests' | 'steps'>(table: Table, rows: readonly TableRows[Table][]) {
  const columns = await client.query(
    'SELECT name FROM system.columns WHERE database = currentDatabase() AND table = {table: String}',
    { table },
    z.object({ name: z.string() }),
  );
  const names = new Set(columns.map(({ name }) => name));
  return rows.map((row) =>
    Object.fromEntries(Object.entries(encodeRow(table, row)).filter(([name]) => names.has(name))),
  );
}

/** Half the rows are there before the hours are, a quarter of them from before there were outcomes. */
beforeAll(async () => {
  running = await startTestServer();
  server = running.server;
  client = createTelemetryClient(server.url);
  const all = fileURLToPath(new URL('migrations', import.meta.url));
  const folder = await mkdtemp(join(tmpdir(), 'variator-migrations-'));
  for (const name of await readdir(all)) if (name < '0005') await cp(join(all, name), join(folder, name));
  await migrate(client, { folder });
  await rm(folder, { recursive: true });
  const formerRequests = await asBefore('requests', requests.slice(0, 3000));
  const older = formerRequests.slice(0, 1500).map((row) => ({ ...row, outcome: '' }));
  await client.insert('requests', older, 'older');
  await client.insert('requests', formerRequests.slice(1500), 'old');
  await client.insert('steps', await asBefore('steps', steps.slice(0, 4500)), 'old');
  await migrate(client);
  for (let from = 3000; from < 6000; from += 500) {
    for (const _ of ['once', 'twice', 'three times']) {
      await insertRows(client, 'requests', requests.slice(from, from + 500), `new.${from}`);
    }
  }
  for (let from = 4500; from < 9000; from += 500) {
    for (const _ of ['once', 'twice']) {
      await insertRows(client, 'steps', steps.slice(from, from + 500), `new.${from}`);
    }
  }
}, 60_000);
afterAll(async () => {
  await client.close();
  await server.stop();
  await running.remove();
});

/** What must be the same to the last digit; percentiles are asked apart. */
const exactOf = ({ at, requestCount, sloAttainment, ...point }: OverviewPoint) => ({
  at,
  requestCount,
  sloAttainment,
  outputTokensPerSecond: point.outputTokensPerSecond,
  inputTokensPerSecond: point.inputTokensPerSecond,
  costUsdPerMillionTokens: point.costUsdPerMillionTokens,
});

test('a series over hours is, point by point, the series over their rows', async () => {
  const question = { bucketMs: HOUR_MS, now, usdPerHour };
  const fromHours = await overviewSeries(client, { ...span, ...question });
  const fromRows = (
    await Promise.all(days.map((day) => overviewSeries(client, { ...day, ...question })))
  ).flat();
  expect(fromHours).toHaveLength(72);
  expect(fromHours.map(exactOf)).toEqual(fromRows.map(exactOf));
  const counted = fromHours.reduce((sum, point) => sum + point.requestCount, 0);
  const endsInSpan = requests.filter(({ arrivedAt, e2eMs, outcome }) => {
    const endedAt = arrivedAt + e2eMs;
    return outcome !== 'refused' && endedAt >= span.fromMs && endedAt < span.toMs;
  });
  expect(counted).toBe(endsInSpan.length);
});

/** The share of the values that lies below, each as often as its weight. */
function rankOf(value: number, values: readonly (readonly [value: number, weight: number])[]): number {
  const weightOf = (some: typeof values): number => some.reduce((sum, [, weight]) => sum + weight, 0);
  return weightOf(values.filter(([each]) => each <= value)) / weightOf(values);
}

test('percentiles of hours, put together over days, are those of all their rows to within a hundredth of rank', async () => {
  const points = await overviewSeries(client, { ...span, bucketMs: DAY_MS, now, usdPerHour });
  expect(points).toHaveLength(3);
  for (const [index, { fromMs, toMs }] of days.entries()) {
    const ttft = requests
      .filter((row) => row.isStreamed && row.ttftMs > 0)
      .filter((row) => row.arrivedAt + row.e2eMs >= fromMs && row.arrivedAt + row.e2eMs < toMs)
      .map((row) => [row.ttftMs, 1] as const);
    const itl = steps
      .filter((row) => row.startedAt >= fromMs && row.startedAt < toMs)
      .map((row) => [row.itlMeanMs, row.itlTokenCount] as const);
    const point = points[index];
    for (const [level, ttftMs, itlMs] of [
      [0.5, point?.ttftP50Ms, point?.itlP50Ms],
      [0.95, point?.ttftP95Ms, point?.itlP95Ms],
      [0.99, point?.ttftP99Ms, point?.itlP99Ms],
    ] as const) {
      expect(Math.abs(rankOf(ttftMs ?? Number.NaN, ttft) - level)).toBeLessThan(0.01);
      expect(Math.abs(rankOf(itlMs ?? Number.NaN, itl) - level)).toBeLessThan(0.01);
    }
  }
});

test('sums of cost and of tenants are those of the rows, to the last millisecond', async () => {
  const whole = await costSummary(client, { ...span, now, usdPerHour });
  const daily = await Promise.all(days.map((day) => costSummary(client, { ...day, now, usdPerHour })));
  for (const name of [
    'deviceMs',
    'prefillDeviceMs',
    'decodeDeviceMs',
    'recomputeDeviceMs',
    'calibrationDeviceMs',
    'promptTokenCount',
    'completionTokenCount',
    'requestCount',
  ] as const) {
    expect(whole[name], name).toBe(daily.reduce((sum, day) => sum + day[name], 0));
  }

  const keyOf = ({ tenant, modelId, serviceTier }: TenantUsage): string =>
    `${tenant} ${modelId} ${serviceTier}`;
  const byKey = new Map<string, TenantUsage>();
  for (const usage of (await Promise.all(days.map((day) => tenantUsage(client, { ...day, now })))).flat()) {
    const sum = byKey.get(keyOf(usage));
    byKey.set(keyOf(usage), {
      ...usage,
      requestCount: usage.requestCount + (sum?.requestCount ?? 0),
      promptTokenCount: usage.promptTokenCount + (sum?.promptTokenCount ?? 0),
      cachedTokenCount: usage.cachedTokenCount + (sum?.cachedTokenCount ?? 0),
      completionTokenCount: usage.completionTokenCount + (sum?.completionTokenCount ?? 0),
      deviceMs: usage.deviceMs + (sum?.deviceMs ?? 0),
    });
  }
  const usage = await tenantUsage(client, { ...span, now });
  expect(usage).toHaveLength(9);
  expect(new Map(usage.map((each) => [keyOf(each), each]))).toEqual(byKey);
});

test('a summary, and the paths, come from the hours that a long span touches', async () => {
  const asked = { fromMs: span.fromMs + 1, toMs: span.toMs - 1, now };
  const { requestCount, errorCount } = await overviewSummary(client, { ...asked, usdPerHour });
  const daily = await Promise.all(days.map((day) => overviewSummary(client, { ...day, now, usdPerHour })));
  expect(requestCount).toBe(daily.reduce((sum, day) => sum + day.requestCount, 0));
  expect(errorCount).toBe(daily.reduce((sum, day) => sum + day.errorCount, 0));
  expect(errorCount).toBeGreaterThan(0);
  const paths = await pathSpans(client, { ...asked, bucketMs: HOUR_MS });
  expect(paths.map(({ pathId }) => pathId)).toEqual(['pathA', 'pathB']);
});

const counts = z.object({ rows: z.number(), hours: z.number(), tenants: z.number() });

async function countsOf(modelId: string): Promise<z.infer<typeof counts> | undefined> {
  const [found] = await client.query(
    `SELECT
      (SELECT count() FROM requests WHERE modelId = {modelId:String}) AS rows,
      (SELECT sum(requestCount) FROM requests_hourly WHERE modelId = {modelId:String}) AS hours,
      (SELECT sum(requestCount) FROM tenants_hourly WHERE modelId = {modelId:String}) AS tenants`,
    { modelId },
    counts,
  );
  return found;
}

test.each([
  ['requests_hourly', { rows: 200, hours: 0, tenants: 0 }],
  ['tenants_hourly', { rows: 200, hours: 200, tenants: 0 }],
])(
  'an insert cut off at %s leaves it behind, and the same insert again brings it level',
  async (table, torn) => {
    const rows = Array.from({ length: 200 }, (_, index) =>
      requestRow({ modelId: table, requestId: `${index}`, arrivedAt: span.fromMs + index }),
    );
    await client.command(`ALTER TABLE ${table} ADD CONSTRAINT cut CHECK requestCount = 0`);
    await expect(insertRows(client, 'requests', rows, `cut.${table}`)).rejects.toThrow(QueryError);
    expect(await countsOf(table)).toEqual(torn);
    await client.command(`ALTER TABLE ${table} DROP CONSTRAINT cut`);
    for (const _ of ['again', 'and once more']) {
      await insertRows(client, 'requests', rows, `cut.${table}`);
      expect(await countsOf(table)).toEqual({ rows: 200, hours: 200, tenants: 200 });
    }
  },
);

test('killed in the midst of inserts, each of which is repeated until it is acknowledged, hours count every row once', async () => {
  const KILL_COUNT = 5;
  const ROWS = 500;
  let killCount = 0;
  let insertCount = 0;
  const killing = (async () => {
    for (; killCount < KILL_COUNT; killCount += 1) {
      await sleep(150 + 37 * killCount);
      process.kill(server.pid, 'SIGKILL');
      await server.exited;
      server = await startEmbeddedServer({ dataDir: running.dataDir, port: server.port });
    }
  })();
  while (killCount < KILL_COUNT || insertCount === 0) {
    const rows = Array.from({ length: ROWS }, (_, index) =>
      requestRow({
        modelId: 'killed',
        requestId: `${insertCount}-${index}`,
        arrivedAt: span.fromMs + ((insertCount * ROWS + index) % 400) * 600_000,
      }),
    );
    const isStored = () =>
      insertRows(client, 'requests', rows, `killed.${insertCount}`).then(
        () => true,
        () => false,
      );
    while (!(await isStored())) await sleep(20);
    insertCount += 1;
  }
  await killing;
  const rows = insertCount * ROWS;
  expect(await countsOf('killed')).toEqual({ rows, hours: rows, tenants: rows });
}, 60_000);

test('the migration may be cut off after any statement and repeated: the hours come out the same', async () => {
  const totals = () =>
    client.query(
      `SELECT
        (SELECT sum(requestCount) FROM requests_hourly) AS requestCount,
        (SELECT sum(decodeDeviceMs) FROM requests_hourly) AS decodeDeviceMs,
        (SELECT sum(deviceMs) FROM tenants_hourly) AS tenantDeviceMs,
        (SELECT sum(stepCount) FROM steps_hourly) AS stepCount,
        (SELECT sum(deviceMs) FROM steps_hourly) AS deviceMs`,
      {},
      z.record(z.string(), z.number()),
    );
  const before = await totals();
  expect(before[0]?.stepCount).toBe(9000);
  const rollups = (await readMigrations())
    .filter(({ name }) => name.startsWith('0005'))
    .flatMap(({ statements }) => statements.flatMap((each) => renderStatement(each, null)));
  expect(rollups).toHaveLength(15);
  for (let cut = 1; cut <= rollups.length; cut += 1) {
    for (const statement of rollups.slice(0, cut)) await client.command(statement);
    for (const statement of rollups) await client.command(statement);
    expect(await totals(), `cut off after ${cut}`).toEqual(before);
  }
}, 60_000);
