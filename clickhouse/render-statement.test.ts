import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { QueryError, type TelemetryClient } from './client.ts';
import { insertRows } from './insert.ts';
import { memory, readMigrations } from './migrate.ts';
import { arrivals } from './queries/arrivals.ts';
import { costSummary } from './queries/cost-summary.ts';
import { latestFits } from './queries/fits.ts';
import { keptPrefixes } from './queries/kept-prefixes.ts';
import { kernelsInSpan } from './queries/kernels-in-span.ts';
import { overviewSeries } from './queries/overview-series.ts';
import { overviewSummary } from './queries/overview-summary.ts';
import { pathSpans } from './queries/path-spans.ts';
import { regimeMarks } from './queries/regime-marks.ts';
import { regimeState } from './queries/regime-state.ts';
import { settledSteps } from './queries/settled-steps.ts';
import { HOUR_MS } from './queries/source-of.ts';
import { stepCount } from './queries/step-count.ts';
import { MOST_DRAWN_STEPS, stepPredictions } from './queries/step-predictions.ts';
import { stepSamples } from './queries/step-samples.ts';
import { tenantUsage } from './queries/tenant-usage.ts';
import { ttft } from './queries/ttft.ts';
import { workloadWindows } from './queries/workload-windows.ts';
import { createDatabase, renderStatement } from './render-statement.ts';
import { requestRow, stepRow } from './rows.fixture.ts';
import { cluster, startTwoShards, type TwoShards } from './two-shards.fixture.ts';

const statements = [memory, ...(await readMigrations()).flatMap((migration) => migration.statements)];

test('on one server a statement stays as it is written, but for its engine', () => {
  expect(renderStatement('CREATE TABLE t (a Int32)\nENGINE = {engine:MergeTree}\nORDER BY a', null)).toEqual([
    'CREATE TABLE t (a Int32)\nENGINE = MergeTree\nORDER BY a',
  ]);
  expect(renderStatement('ALTER TABLE t\n    ADD COLUMN `b` Int32,\n    ADD COLUMN c Int32', null)).toEqual([
    'ALTER TABLE t\n    ADD COLUMN IF NOT EXISTS `b` Int32,\n    ADD COLUMN IF NOT EXISTS c Int32',
  ]);
});

test('on a cluster a table becomes a replicated one on each shard and a distributed one over them', () => {
  const table =
    "CREATE TABLE regimes (\n  a Int32\n)\nENGINE = {engine:MergeTree}\nORDER BY a\nSETTINGS non_replicated_deduplication_window = 1000\nCOMMENT 'x'";
  expect(renderStatement(table, { name: 'prod', database: 'tele`metry' })).toEqual([
    "CREATE TABLE regimes_local ON CLUSTER prod (\n  a Int32\n)\nENGINE = ReplicatedMergeTree('/clickhouse/tables/{uuid}/{shard}', '{replica}')\nORDER BY a\n" +
      "SETTINGS replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800\nCOMMENT 'x'",
    "CREATE TABLE regimes ON CLUSTER prod AS regimes_local ENGINE = Distributed('prod', `tele\\`metry`, 'regimes_local', cityHash64(regimeId))",
  ]);
  const view = 'CREATE MATERIALIZED VIEW v TO steps_hourly AS SELECT\n  a\nFROM steps\nGROUP BY a';
  expect(renderStatement(view, cluster)).toEqual([
    'CREATE MATERIALIZED VIEW v ON CLUSTER c TO steps_hourly_local AS SELECT\n  a\nFROM steps_local AS steps\nGROUP BY a',
  ]);
});

test('what it does not know it does not guess', () => {
  expect(() => renderStatement('RENAME TABLE a TO b', cluster)).toThrow('not known what this means');
  expect(() => renderStatement('CREATE TABLE t (a Int32)', cluster)).toThrow('no sharding key');
});

let shards: TwoShards;
let one: TelemetryClient;
let two: TelemetryClient;
beforeAll(async () => {
  shards = await startTwoShards();
  [one, two] = shards.clients;
}, 60_000);
afterAll(() => shards.remove());

test('every statement of every migration is rendered, runs on the cluster, and ClickHouse can read it', async () => {
  const rendered = statements.flatMap((statement) => renderStatement(statement, cluster));
  for (const statement of [createDatabase('variator', cluster), ...rendered]) {
    expect(statement.includes(' ON CLUSTER c') || statement.startsWith('INSERT INTO ')).toBe(true);
    await one.query(
      'SELECT formatQuery({statement:String}) AS sql',
      { statement },
      z.object({ sql: z.string() }),
    );
  }
  const tables = await two.query(
    "SELECT name, engine FROM system.tables WHERE database = 'variator' ORDER BY name",
    {},
    z.object({ name: z.string(), engine: z.string() }),
  );
  const all = tables.filter(({ engine }) => engine === 'Distributed').map(({ name }) => name);
  expect(all).toEqual([
    'model_fits',
    'regime_states',
    'regimes',
    'requests',
    'requests_hourly',
    'schema_migrations',
    'steps',
    'steps_hourly',
    'tenants_hourly',
  ]);
  const columnsOf = async (table: string) =>
    one.query(
      `SELECT name, type, comment FROM system.columns WHERE database = 'variator' AND table = {table:String}`,
      { table },
      z.record(z.string(), z.string()),
    );
  for (const table of all) expect(await columnsOf(table), table).toEqual(await columnsOf(`${table}_local`));
});

const now = Date.now();
const fromMs = Math.floor(now / HOUR_MS - 72) * HOUR_MS;
const span = { fromMs, toMs: fromMs + 71 * HOUR_MS };
const COUNT = 3000;
const requests = Array.from({ length: COUNT }, (_, index) =>
  requestRow({
    requestId: `r${index}`,
    session: `s${index % 70}`,
    cachedTokenCount: 1000,
    arrivedAt: fromMs + (index % 70) * HOUR_MS + index,
    e2eMs: 1,
    promptTokenCount: index,
    decodeDeviceMs: 0.5,
  }),
);
const steps = Array.from({ length: COUNT }, (_, index) =>
  stepRow({
    stepId: index,
    startedAt: fromMs + (index % 70) * HOUR_MS + index,
    deviceMs: 0.25,
    predictedMs: index % 2 === 0 ? 0.25 : 0.5,
    emittedTokenCount: 2,
  }),
);

test('rows sent again, by whichever server, are on their shard once, and so are the hours made of them', async () => {
  for (const client of [one, two, one]) {
    await insertRows(client, 'requests', requests, 'token');
    await insertRows(client, 'steps', steps, 'token');
  }
  const counts = async (client: TelemetryClient) =>
    client.query(
      'SELECT (SELECT count() FROM requests_local) AS here, (SELECT count() FROM requests) AS everywhere',
      {},
      z.object({ here: z.number(), everywhere: z.number() }),
    );
  const [atOne] = await counts(one);
  const [atTwo] = await counts(two);
  expect(atOne?.everywhere).toBe(COUNT);
  expect((atOne?.here ?? 0) + (atTwo?.here ?? 0)).toBe(COUNT);
  expect(Math.min(atOne?.here ?? 0, atTwo?.here ?? 0)).toBeGreaterThan(COUNT / 3);

  const points = await overviewSeries(two, { ...span, bucketMs: HOUR_MS, now, usdPerHour: 1 });
  expect(points.reduce((sum, { requestCount }) => sum + requestCount, 0)).toBe(COUNT);
  expect(await costSummary(two, { ...span, now, usdPerHour: 1 })).toMatchObject({
    requestCount: COUNT,
    deviceMs: COUNT / 4,
    completionTokenCount: COUNT * 2,
  });
  expect(await tenantUsage(one, { ...span, now })).toMatchObject([
    { requestCount: COUNT, promptTokenCount: (COUNT * (COUNT - 1)) / 2, deviceMs: COUNT / 2 },
  ]);
  expect(await arrivals(two, { ...span, limit: 5 })).toHaveLength(5);
  const windows = await workloadWindows(two, { ...span, windowMs: HOUR_MS, countedAt: 'arrival' });
  expect(windows.reduce((sum, { requestCount }) => sum + requestCount, 0)).toBe(COUNT);
  const summary = await overviewSummary(two, { ...span, now, usdPerHour: 1 });
  expect(summary).toMatchObject({
    requestCount: COUNT,
    lastStepAt: Math.max(...steps.map(({ startedAt }) => startedAt)),
  });
  expect(await pathSpans(one, { ...span, now, bucketMs: HOUR_MS })).toMatchObject([{ pathId: 'pathA' }]);
  const [step] = steps;
  const kernels = { deviceKind: 'cpu', modelHash: 'hash', kernelsId: step?.kernelsId ?? '' };
  expect(await stepSamples(one, { ...span, ...kernels, limit: 7 })).toHaveLength(7);
  expect(await stepCount(two, { ...span, workerId: 'w1' })).toBe(COUNT);
  const kept = { ...span, by: 'tenant' as const, keys: ['default'] };
  // Turns of one session lie on both shards; each but the first waited 69 ms for 1000 tokens.
  expect(await keptPrefixes(two, kept)).toEqual(await keptPrefixes(one, kept));
  expect((await keptPrefixes(one, kept))[0]?.keptTokenSeconds).toBeCloseTo((COUNT - 70) * 69, 1);
  expect(await kernelsInSpan(two, span)).toMatchObject([{ stepCount: COUNT, predictedStepCount: COUNT }]);
  const banded = { ...span, ...kernels, logBand90: 0.1, quietShare: 0.1 };
  const { errors, drawn } = await stepPredictions(two, banded);
  expect(errors).toMatchObject([
    { steps: 'decode only', stepCount: COUNT, insideMape: 0, outsideMape: 1 },
    { steps: 'all', stepCount: COUNT, insideShare: 0.5, mape: 0.5 },
    { steps: 'undisturbed', stepCount: COUNT, insideShare: 0.5 },
  ]);
  expect(drawn).toHaveLength(MOST_DRAWN_STEPS);
  expect(await stepPredictions(one, banded)).toEqual({ errors, drawn });
  expect(await ttft(two, span)).toMatchObject({ requestCount: 0 });
  expect(await settledSteps(two, { rolloutId: 'none' })).toEqual([]);
  expect(await regimeMarks(two, span)).toEqual([]);
  expect(await regimeState(two, { detector: 'x', windowMs: 1 })).toBeNull();
  expect(await latestFits(two)).toEqual([]);
});

test('an insert that only one shard took whole is completed by the same insert again', async () => {
  const more = requests.map((row) => ({ ...row, requestId: `more ${row.requestId}`, tenant: 'more' }));
  await two.command('ALTER TABLE tenants_hourly_local ADD CONSTRAINT cut CHECK requestCount = 0');
  await expect(insertRows(one, 'requests', more, 'more')).rejects.toThrow(QueryError);
  const ofMore = async () =>
    (await tenantUsage(one, { ...span, now })).find(({ tenant }) => tenant === 'more');
  expect((await ofMore())?.requestCount ?? 0).toBeLessThan(COUNT);
  await two.command('ALTER TABLE tenants_hourly_local DROP CONSTRAINT cut');
  for (const client of [two, one]) await insertRows(client, 'requests', more, 'more');
  expect(await ofMore()).toMatchObject({ requestCount: COUNT, deviceMs: COUNT / 2 });
});

test('the sums by hour are made anew from the rows of all shards', async () => {
  const before = await tenantUsage(one, { ...span, now });
  const rollups = (await readMigrations()).find(({ name }) => name.startsWith('0005'))?.statements ?? [];
  for (const statement of rollups)
    for (const rendered of renderStatement(statement, cluster)) await shards.run(rendered);
  expect(await tenantUsage(two, { ...span, now })).toEqual(before);
});
