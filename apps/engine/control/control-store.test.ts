import { mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'libsql';
import { afterEach, beforeEach, expect, test } from 'vitest';
import { type AuditEntry, type ControlStore, openControlStore } from './control-store.ts';
import { scriptedFleet } from './fixtures/scripted-fleet.ts';
import { openControl } from './open-control.ts';

let folder: string;
let file: string;
let store: ControlStore;
const audit = (auditId: string): AuditEntry => ({
  auditId,
  at: 1000,
  who: 'ada',
  what: 'test',
  subject: 'store',
  details: '',
});

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'control-store-'));
  file = join(folder, 'made', 'control.sqlite');
  store = await openControlStore(file, 1000);
});
afterEach(async () => {
  await store.close();
  rmSync(folder, { recursive: true });
});

test('only its owner can read the file, its log and its folder', () => {
  expect(statSync(file).mode & 0o777).toBe(0o600);
  expect(statSync(`${file}-wal`).mode & 0o777).toBe(0o600);
  expect(statSync(join(folder, 'made')).mode & 0o777).toBe(0o700);
});

test('what was stored is there after opening it again', async () => {
  await store.savePolicyChanges({ autonomy: 'observe' }, audit('a'));
  await store.close();
  store = await openControlStore(file, 2000);
  expect(await store.policyChanges()).toEqual({ autonomy: 'observe' });
});

test('paths of rows that are older than a setting get what was fixed then, wherever they stand', async () => {
  const old = {
    linear: 'linear.reference',
    attention: 'attention.bf16',
    threadCount: 1,
    tokenBudget: 64,
    maxRunningCount: 4,
  } as const;
  const whole = { ...old, draftTokenCount: 0, tiles: 'measured', splitTokens: 512 };
  const young = { ...whole, draftTokenCount: 3, tiles: 'prior', splitTokens: 1024 };
  await store.close();
  const database = new Database(file);
  const insert = (table: string, row: Readonly<Record<string, string | number>>) =>
    database
      .prepare(`INSERT INTO ${table} (${Object.keys(row)}) VALUES (${Object.keys(row).map(() => '?')})`)
      .run(...Object.values(row));
  for (const [workerId, path] of Object.entries({ old, young })) {
    insert('live_paths', { workerId, path: JSON.stringify(path), rolloutId: '', promotedAt: 1 });
  }
  const opening = JSON.stringify({ kind: 'begun', rolloutId: 'r', from: old, to: young });
  insert('rollout_events', { rolloutId: 'r', eventIndex: 0, at: 1, event: opening });
  const entry = { rolloutId: 'r', tried: { from: old, to: young, itlErrors: [{ path: old, mean: 0 }] } };
  insert('ledger', { rolloutId: 'r', endedAt: 1, entry: JSON.stringify(entry) });
  database.close();
  store = await openControlStore(file, 2000);
  const paths = new Map((await store.livePaths()).map(({ workerId, path }) => [workerId, path]));
  expect(paths.get('old')).toEqual(whole);
  expect(paths.get('young')).toEqual(young);
  expect((await store.rolloutEvents('r'))[0]?.event).toMatchObject({ from: whole, to: young });
  const tried = { from: whole, to: young, itlErrors: [{ path: whole, mean: 0 }] };
  expect((await store.ledger(1))[0]).toEqual({ rolloutId: 'r', tried });
});

test('the same deed is written to the audit once', async () => {
  await store.savePolicyChanges({ autonomy: 'observe' }, audit('same'));
  await store.savePolicyChanges({ autonomy: 'oneClick' }, audit('same'));
  expect(await store.audit(10)).toHaveLength(1);
});

test('a file of a newer Variator is refused with a sentence', async () => {
  await store.close();
  const database = new Database(file);
  database.exec('INSERT INTO schema_migrations VALUES (99, 1)');
  database.close();
  await expect(openControlStore(file, 2000)).rejects.toThrow('is of version 99');
  rmSync(file);
  store = await openControlStore(file, 3000);
});

test('a file that is no database is refused by name', async () => {
  const damaged = join(folder, 'damaged.sqlite');
  writeFileSync(
    damaged,
    'this is no database, only words that fill more than a header of a hundred bytes, '.repeat(9),
  );
  await expect(openControlStore(damaged, 1000)).rejects.toThrow(damaged);
});

test('only what people changed is stored, so that the price given at start still applies', async () => {
  const options = {
    fleet: scriptedFleet(),
    encode: async () => [1],
    log: () => undefined,
    now: () => 1000,
    file: join(folder, 'policy.sqlite'),
  };
  const first = await openControl({ ...options, deviceUsdPerHour: 0.5 });
  await first.setPolicy({ objectives: { itlMs: 50 } }, 'ada');
  await first.setPolicy({ canary: { mostPairCount: 6 } }, 'ada');
  await first.close();
  const second = await openControl({ ...options, deviceUsdPerHour: 0.7 });
  expect(second.policy()).toEqual({
    autonomy: 'oneClick',
    objectives: { ttftMs: 2000, itlMs: 50 },
    canary: {
      blockDurationMs: 8000,
      leastPairCount: 4,
      leastPairCountToPromote: 8,
      mostPairCount: 6,
      leastStepsPerBlock: 8,
      itlGuardRatio: 1.5,
    },
    calibrationShare: 0.02,
    deviceUsdPerHour: 0.7,
  });
  await expect(second.setPolicy({ canary: { mostPairCount: 3 } }, 'ada')).rejects.toThrow(
    'canary.leastPairCount 4 is above canary.mostPairCount 3.',
  );
  expect(second.policy().canary.mostPairCount).toBe(6);
  await second.close();
});
