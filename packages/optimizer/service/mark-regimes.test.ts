import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { type EmbeddedServer, startEmbeddedServer } from '@variator/clickhouse/embedded-server';
import { insertRows } from '@variator/clickhouse/insert';
import { migrate } from '@variator/clickhouse/migrate';
import { regimeMarks } from '@variator/clickhouse/queries/regime-marks';
import { workloadWindows } from '@variator/clickhouse/queries/workload-windows';
import { requestRow, startTestServer, type TestServer } from '@variator/clickhouse/rows.fixture';
import { advance, NO_REGIME, type RegimeState } from '@variator/optimizer/regime';
import { seededRandom } from '@variator/optimizer/seeded-random';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AdminServer, createAdminServer } from '../../../apps/engine/api/admin-server.ts';
import type { Control } from '../../../apps/engine/control/control.ts';
import { scriptedFleet } from '../../../apps/engine/control/fixtures/scripted-fleet.ts';
import { openControl } from '../../../apps/engine/control/open-control.ts';
import { createGateway, type Gateway } from './gateway.ts';
import { createRegimeMarker, type RegimeMarker } from './mark-regimes.ts';

const WINDOW_MS = 1000;
const ROWS_DELAY_MS = 1500;
const base = Math.floor(Date.now() / WINDOW_MS - 1200) * WINDOW_MS;
const folder = mkdtempSync(join(tmpdir(), 'mark-regimes-'));
const random = seededRandom(8);
const end = new AbortController();

let clickhouse: TestServer;
let again: EmbeddedServer | null = null;
let telemetry: TelemetryClient;
let control: Control;
let server: AdminServer;
let gateway: Gateway;
let fedUntil = base;

beforeAll(async () => {
  clickhouse = await startTestServer();
  telemetry = createTelemetryClient(clickhouse.server.url);
  await migrate(telemetry);
  const fleet = scriptedFleet();
  control = await openControl({
    file: join(folder, 'control.sqlite'),
    fleet,
    encode: async () => [],
    log: () => undefined,
    now: Date.now,
  });
  server = createAdminServer({
    fleet,
    control,
    telemetry,
    recorder: { droppedRowCount: () => 0, fault: () => '' },
    modelId: 'model',
    now: Date.now,
    host: '127.0.0.1',
    port: 0,
    adminKey: null,
    log: () => undefined,
  });
  gateway = createGateway((await server.listen()).url, null, end.signal);
}, 60_000);
afterAll(async () => {
  end.abort();
  await server.close();
  await control.close();
  await telemetry.close();
  await again?.stop();
  await clickhouse.remove();
  rmSync(folder, { recursive: true, force: true });
});

/** The next windows of traffic; twelve requests each, on the second. */
async function insertWindows(windowCount: number, sizes: { prompt: number; answer: number }): Promise<void> {
  const rows = Array.from({ length: 12 * windowCount }, (_, index) =>
    requestRow({
      arrivedAt: fedUntil + ((index + 0.8 * random.uniform()) * WINDOW_MS) / 12,
      requestId: `r-${fedUntil}-${index}`,
      promptTokenCount: Math.round(sizes.prompt * (0.8 + 0.4 * random.uniform())),
      completionTokenCount: Math.round(sizes.answer * (0.8 + 0.4 * random.uniform())),
      e2eMs: 5,
    }),
  );
  await insertRows(telemetry, 'requests', rows, `requests ${fedUntil}`);
  fedUntil += windowCount * WINDOW_MS;
}
const chats = { prompt: 40, answer: 40 };
const flood = { prompt: 450, answer: 8 };

const newMarker = (): RegimeMarker =>
  createRegimeMarker({ gateway, telemetry, windowMs: WINDOW_MS, log: () => undefined });
const seeAll = (marker: RegimeMarker): Promise<void> => marker.round(fedUntil + ROWS_DELAY_MS);

test('after a crash of ClickHouse and one of its own it goes on, and knows earlier regimes by id and name', async () => {
  let marker = newMarker();
  await insertWindows(6, chats);
  await seeAll(marker);
  const first = marker.current();
  await insertWindows(18, chats);
  await seeAll(marker);
  await insertWindows(8, flood);
  await seeAll(marker);
  const second = marker.current();
  expect(second?.regimeId).not.toBe(first?.regimeId);

  process.kill(clickhouse.server.pid, 'SIGKILL');
  await clickhouse.server.exited;
  await expect(seeAll(marker)).resolves.toBeUndefined();
  await expect(marker.round(fedUntil + 5 * WINDOW_MS)).rejects.toThrow();
  again = await startEmbeddedServer({ dataDir: clickhouse.dataDir, port: clickhouse.server.port });
  await insertWindows(8, flood);
  await seeAll(marker);
  expect(marker.current()).toEqual(second);

  marker = newMarker();
  await seeAll(marker);
  expect(marker.current()).toEqual(second);
  await insertWindows(8, chats);
  await seeAll(marker);
  expect(marker.current()).toMatchObject({ regimeId: first?.regimeId, name: first?.name, isRecalled: true });
  expect(marker.livingId(second?.regimeId ?? '')).toBe(second?.regimeId);
  expect(marker.livingId('regime-of-nobody')).toBe('');

  // One that was never interrupted comes to the same.
  const span = { fromMs: first?.startedAt ?? 0, toMs: fedUntil, windowMs: WINDOW_MS };
  let state: RegimeState = NO_REGIME;
  const ids: string[] = [];
  for (const window of await workloadWindows(telemetry, { ...span, countedAt: 'end' })) {
    const { startedAt, requestCount, sessionCount, concurrency: _, ...features } = window;
    const step = advance(state, { startedAt, requestCount, sessionCount, windowMs: WINDOW_MS, features });
    state = step.state;
    ids.push(...step.marks.filter(({ isConfirmed }) => isConfirmed).map(({ regimeId }) => regimeId));
  }
  const stored = (await regimeMarks(telemetry, span)).filter(({ isConfirmed }) => isConfirmed);
  expect(stored.map(({ regimeId }) => regimeId)).toEqual(ids);
  expect(ids).toEqual([first?.regimeId, second?.regimeId, first?.regimeId]);
}, 60_000);

test('a state that cannot be read is said so, and the detector starts anew', async () => {
  const lines: string[] = [];
  const row = { savedAt: fedUntil + 1e6, detector: 'newest-means-1', windowMs: WINDOW_MS, state: '{}' };
  await insertRows(telemetry, 'regime_states', [row], 'broken');
  const marker = createRegimeMarker({
    gateway,
    telemetry,
    windowMs: WINDOW_MS,
    log: (line) => lines.push(line),
  });
  await insertWindows(6, chats);
  await seeAll(marker);
  expect(lines[0]).toBe('regimes: what was stored cannot be read, so they are learned anew');
  expect(marker.current()?.isRecalled).toBe(false);
});
