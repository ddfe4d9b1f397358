import { cp, mkdtemp, readdir, readFile, rm, writeFile } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { createTelemetryClient, type TelemetryClient } from './client.ts';
import { insertRows } from './insert.ts';
import { migrate, splitStatements } from './migrate.ts';
import { arrivals } from './queries/arrivals.ts';
import type { RequestRow } from './request-row.ts';
import { requestRow, startTestServer, stepRow, type TestServer } from './rows.fixture.ts';

/** Recent, since rows beyond their time to live are not kept. */
const hour = Math.floor(Date.now() / 3_600_000) * 3_600_000;
const migrations = fileURLToPath(new URL('migrations', import.meta.url));
let running: TestServer;
let client: TelemetryClient;
let folder: string;
beforeAll(async () => {
  running = await startTestServer();
  client = createTelemetryClient(running.server.url);
  folder = await mkdtemp(join(tmpdir(), 'variator-migrations-'));
  await cp(migrations, folder, { recursive: true });
});
afterAll(async () => {
  await client.close();
  await running.remove();
  await rm(folder, { recursive: true, force: true });
});

test('statements end with a semicolon at the end of a line, comments are left out', () => {
  expect(splitStatements("-- a; b\nCREATE x COMMENT 'a; b';\n\nSELECT ';' ;\n-- end\n")).toEqual([
    "CREATE x COMMENT 'a; b'",
    "SELECT ';'",
  ]);
});

test('every migration is applied once, in order, and schema.sql is what they make', async () => {
  const names = (await readdir(migrations)).sort();
  expect(await migrate(client)).toEqual(names);
  expect(await migrate(client)).toEqual([]);

  const tables = await client.query(
    `SELECT formatQuery(replaceAll(create_table_query, 'variator.', '')) AS sql
     FROM system.tables WHERE database = currentDatabase() ORDER BY name`,
    {},
    z.object({ sql: z.string() }),
  );
  const schema = tables.map(({ sql }) => `${sql};\n`).join('\n');
  await expect(
    `-- The tables as the migrations make them today; migrate.test.ts compares. Write it anew with vitest -u.\n\n${schema}`,
  ).toMatchFileSnapshot('./schema.sql');
});

test('requests from before guesses were counted say that they are unknown, not that there were none', async () => {
  const older = await startTestServer();
  const reader = createTelemetryClient(older.server.url);
  try {
    const before = await mkdtemp(join(tmpdir(), 'variator-migrations-'));
    for (const name of await readdir(migrations))
      if (name < '0009') await cp(join(migrations, name), join(before, name));
    await migrate(reader, { folder: before });
    await rm(before, { recursive: true });
    const row = (requestId: string, counts: Partial<RequestRow>) =>
      requestRow({ requestId, arrivedAt: hour, completionTokenCount: 9, ...counts });
    // As a former version wrote it: without these columns.
    const added = /^(watchedTokenCount|guessedTokenCount|rightGuessCount|rightRunCount)$/;
    const old = Object.fromEntries(
      Object.entries(row('old', {})).filter(([name]) => !added.test(name)),
    ) as unknown as RequestRow;
    await insertRows(reader, 'requests', [old], 'old');

    expect(await migrate(reader)).toContain('0009_guesses.sql');
    // A row that a spool kept from before is written after.
    await insertRows(reader, 'requests', [{ ...old, requestId: 'spooled' }], 'spooled');
    await insertRows(reader, 'requests', [row('none right', { watchedTokenCount: 8 })], 'none right');
    const counted = { watchedTokenCount: 8, guessedTokenCount: 5, rightGuessCount: 4, rightRunCount: 2 };
    await insertRows(reader, 'requests', [row('counted', counted)], 'counted');
    const found = await arrivals(reader, { fromMs: hour - 1, toMs: hour + 1, limit: 10 });
    const guesses = Object.fromEntries(found.map((one) => [one.requestId, one.guesses]));
    expect(guesses).toEqual({
      old: null,
      spooled: null,
      'none right': { ...counted, guessedTokenCount: 0, rightGuessCount: 0, rightRunCount: 0 },
      counted,
    });
  } finally {
    await reader.close();
    await older.remove();
  }
});

test('a start that was cut off before it had noted its migrations repeats them, and nothing is lost or doubled', async () => {
  const columnCount = async () =>
    client.query(
      'SELECT table, count() AS columnCount FROM system.columns WHERE database = currentDatabase() GROUP BY table ORDER BY table',
      {},
      z.object({ table: z.string(), columnCount: z.number() }),
    );
  const before = await columnCount();
  await client.command('TRUNCATE TABLE schema_migrations');
  expect(await migrate(client)).toHaveLength((await readdir(migrations)).length);
  expect(await columnCount()).toEqual(before);
  expect(await migrate(client)).toEqual([]);
});

test('a statement may take longer than the client waits for a silent server', async () => {
  const impatient = createTelemetryClient(running.server.url, { requestTimeoutMs: 900 });
  await impatient.command(
    'SELECT sleepEachRow(0.2) FROM numbers(10) SETTINGS max_block_size = 1, function_sleep_max_microseconds_per_block = 0',
  );
  await impatient.close();
});

test('columns are named exactly as the fields of the rows, each with its meaning', async () => {
  const columns = await client.query(
    "SELECT table, name, comment FROM system.columns WHERE database = currentDatabase() AND table IN ('requests', 'steps')",
    {},
    z.object({ table: z.string(), name: z.string(), comment: z.string() }),
  );
  const namesOf = (table: string): string[] =>
    columns.filter((column) => column.table === table).map((column) => column.name);
  expect(namesOf('requests')).toEqual(Object.keys(requestRow({})));
  expect(namesOf('steps')).toEqual(Object.keys(stepRow({})));
  expect(columns.filter((column) => column.comment === '')).toEqual([]);
});

test('rows come back as they were written, to the microsecond, and once for a token', async () => {
  const step = stepRow({ startedAt: hour + 123.457, deviceMs: 12.345678901234567, blockIndex: -1 });
  await insertRows(client, 'steps', [step], 'a');
  await insertRows(client, 'steps', [step], 'a');
  await insertRows(client, 'requests', [requestRow({ arrivedAt: hour, requestId: 'r\\\'"\n' })], 'a');
  expect(
    await client.query(
      'SELECT toUnixTimestamp64Micro(startedAt) AS startedAtMicros, deviceMs, blockIndex, isSettling FROM steps',
      {},
      z.object({
        startedAtMicros: z.number(),
        deviceMs: z.number(),
        blockIndex: z.number(),
        isSettling: z.boolean(),
      }),
    ),
  ).toEqual([
    { startedAtMicros: hour * 1000 + 123_457, deviceMs: step.deviceMs, blockIndex: -1, isSettling: false },
  ]);
  expect(
    await client.query(
      'SELECT requestId FROM requests WHERE requestId = {requestId:String}',
      { requestId: 'r\\\'"\n' },
      z.object({ requestId: z.string() }),
    ),
  ).toHaveLength(1);
});

test('a new file is applied; an edited or missing one, or a wrong number, is refused', async () => {
  const count = (await readdir(folder)).length;
  const numbered = (number: number, name: string) => `${String(number).padStart(4, '0')}_${name}.sql`;
  const more = numbered(count + 1, 'more');
  await writeFile(
    join(folder, more),
    'CREATE TABLE more (a Int32) ENGINE = {engine:MergeTree} ORDER BY a;\n',
  );
  expect(await migrate(client, { folder })).toEqual([more]);
  await expect(migrate(client)).rejects.toThrow(new RegExp(`${more}.*newer`));

  const first = join(folder, '0001_requests_and_steps.sql');
  const text = await readFile(first, 'utf8');
  await writeFile(first, `${text}-- edited\n`);
  await expect(migrate(client, { folder })).rejects.toThrow(/0001_requests_and_steps\.sql was edited/);
  await writeFile(first, text);

  const gap = numbered(count + 3, 'gap');
  await writeFile(join(folder, gap), 'SELECT 1;\n');
  await expect(migrate(client, { folder })).rejects.toThrow(`${gap} should be number ${count + 2}`);
});
