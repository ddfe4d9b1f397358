import { type AddressInfo, createServer, type Socket } from 'node:net';
import { createTRPCClient, httpBatchLink } from '@trpc/client';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { insertRows } from '@variator/clickhouse/insert';
import { migrate } from '@variator/clickhouse/migrate';
import { requestRow, startTestServer, stepRow, type TestServer } from '@variator/clickhouse/rows.fixture';
import { type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { envelope, incumbent, reference, scriptedFleet } from '../control/fixtures/scripted-fleet.ts';
import { openControl } from '../control/open-control.ts';
import { createAdminServer } from './admin-server.ts';
import type { AppRouter } from './router.ts';
import { answerOf } from './telemetry-answer.ts';

let clickhouse: TestServer;
let telemetry: TelemetryClient;
beforeAll(async () => {
  clickhouse = await startTestServer();
  telemetry = createTelemetryClient(clickhouse.server.url);
});
afterAll(async () => {
  await telemetry.close();
  await clickhouse.remove();
});

async function withApi(
  client: TelemetryClient,
  ask: (api: ReturnType<typeof createTRPCClient<AppRouter>>) => Promise<void>,
): Promise<void> {
  const fleet = scriptedFleet();
  const options = { fleet, encode: async () => [1], log: () => undefined, now: () => 1_800_000_060_000 };
  const control = await openControl({ ...options, file: ':memory:' });
  const server = createAdminServer({
    ...options,
    control,
    telemetry: client,
    recorder: { droppedRowCount: () => 0, fault: () => '' },
    modelId: 'stories-5m',
    host: '127.0.0.1',
    port: 0,
    adminKey: null,
  });
  const { url } = await server.listen();
  try {
    await ask(
      createTRPCClient<AppRouter>({
        links: [httpBatchLink({ url: `${url}/trpc`, headers: { 'x-variator-client': 'test' } })],
      }),
    );
  } finally {
    await server.close();
    await control.close();
  }
}

const rooflineFit = (path: ExecutionPath): StepTimeFit => ({
  ...rooflinePrior(envelope, path),
  fitId: 'roofline',
  deviceKind: envelope.deviceKind,
  modelHash: envelope.modelHash,
  kernelsId: kernelsId(path),
  fittedAt: 1_800_000_000_000,
  sampleCount: 20,
  heldOutMape: null,
  heldOutCount: 0,
  logBand90: null,
});

test('what ClickHouse holds comes through every procedure that reads it', async () => {
  await withApi(telemetry, async (api) => {
    const early = await api.overview.summary.query({ windowMs: 60_000 });
    expect(early.telemetryFault).toMatch(/^ClickHouse could not answer this query/);
    expect(early).toMatchObject({ isReady: true, ttftP95Ms: null });
  });
  await migrate(telemetry);
  const at = 1_800_000_000_000;
  await insertRows(
    telemetry,
    'steps',
    [stepRow({ startedAt: at + 1000, deviceMs: 40, decodeDeviceMs: 40, emittedTokenCount: 120 })],
    'steps-1',
  );
  await insertRows(
    telemetry,
    'requests',
    [
      requestRow({
        arrivedAt: at + 900,
        ttftMs: 250,
        e2eMs: 900,
        isWithinObjectives: true,
        promptTokenCount: 7,
        cachedTokenCount: 3,
        completionTokenCount: 120,
        decodeDeviceMs: 40,
      }),
    ],
    'requests-1',
  );
  await withApi(telemetry, async (api) => {
    const summary = await api.overview.summary.query({ windowMs: 60_000 });
    expect(summary).toMatchObject({
      telemetryFault: '',
      requestCount: 1,
      outputTokensPerSecond: 2,
      ttftP95Ms: 250,
      sloAttainment: 1,
      lastStepAt: at + 1000,
    });
    const span = { fromMs: at, toMs: at + 60_000 };
    const series = await api.overview.series.query({ ...span, bucketMs: 10_000 });
    expect(series).toMatchObject({
      bucketMs: 10_000,
      regimes: [],
      rollouts: [],
      paths: [{ pathId: 'pathA' }],
      objectives: { ttftMs: 2000, itlMs: 50 },
    });
    expect(series.points).toHaveLength(6);
    expect(series.points[0]).toMatchObject({ requestCount: 1, ttftP50Ms: 250 });
    expect(await api.costs.summary.query(span)).toMatchObject({
      deviceUsdPerHour: 0.08,
      deviceMs: 40,
      requestCount: 1,
      deviceMsPerRequest: 40,
    });
    expect(await api.regimes.list.query(span)).toEqual([]);
    expect(await api.fits.predictions.query(span)).toMatchObject({
      kernels: [{ kernelsId: 'kernelsA', stepCount: 1, predictedStepCount: 0, path: null, isLive: false }],
      shown: { deviceKind: 'cpu', modelHash: 'hash', kernelsId: 'kernelsA' },
      fit: null,
      errors: [],
      drawn: [],
    });

    const month = { fromMs: at - 30 * 86_400_000, toMs: at + 60_000 };
    for (const asked of [span, month]) {
      expect(await api.costs.byTenant.query(asked)).toEqual([
        {
          tenant: 'default',
          modelId: 'model',
          serviceTier: 'default',
          requestCount: 1,
          promptTokenCount: 7,
          cachedTokenCount: 3,
          completionTokenCount: 120,
          deviceMs: 40,
          deviceUsd: expect.closeTo((40 / 3.6e6) * 0.08, 15),
        },
      ]);
    }
    for (const by of ['model', 'tier', 'tenant', 'session', 'program'] as const) {
      const ledger = await api.costs.ledger.query({ ...span, by });
      expect(ledger).toMatchObject({ by, servedDeviceMs: 40, otherDeviceMs: 0, kvDeviceMsPerBlockSecond: 0 });
      const { servedDeviceMs, otherDeviceMs, headroomMs, overheadMs, availableMs } = ledger;
      expect(servedDeviceMs + otherDeviceMs + headroomMs + overheadMs).toBeCloseTo(availableMs, 9);
      expect(ledger.groups).toMatchObject([
        { requestCount: 1, deviceMs: 40, deviceMsPerGoodRequest: 40, marginalUsdPerMillionTokens: null },
      ]);
    }
    expect((await api.costs.ledger.query({ ...month, by: 'tenant' })).groups).toMatchObject([
      { key: 'default', deviceMs: 40 },
    ]);
    expect(await api.overview.summary.query({ windowMs: 90 * 86_400_000 })).toMatchObject({
      requestCount: 1,
      ttftP95Ms: 250,
    });
    const monthly = await api.overview.series.query({ ...month, bucketMs: 3 * 3_600_000 });
    expect(monthly.points.filter(({ requestCount }) => requestCount > 0)).toMatchObject([
      { requestCount: 1, ttftP50Ms: 250, itlP50Ms: null },
    ]);
    expect(monthly.paths).toMatchObject([{ pathId: 'pathA' }]);
  });
});

test('predictions are of the live kernels unless others are asked for, with the band of their fit', async () => {
  const at = 1_800_000_300_000;
  const span = { fromMs: at, toMs: at + 60_000 };
  const { deviceKind, modelHash } = envelope;
  const step = (path: ExecutionPath, stepId: number) =>
    stepRow({
      startedAt: at + 1,
      stepId,
      deviceKind,
      modelHash,
      kernelsId: kernelsId(path),
      predictedMs: 10,
      deviceMs: 9 + stepId,
    });
  const rows = [
    step(incumbent, 1),
    step(incumbent, 2),
    step(reference, 3),
    step(reference, 4),
    step(reference, 5),
  ];
  await insertRows(telemetry, 'steps', rows, 'foretold');
  await withApi(telemetry, async (api) => {
    await api.fits.publish.mutate({ ...rooflineFit(incumbent), logBand90: 0.05 });
    const live = await api.fits.predictions.query(span);
    expect(live.kernels).toMatchObject([
      { stepCount: 3, path: { linear: 'linear.reference' }, isLive: false },
      { stepCount: 2, path: { linear: 'linear.int8-generic', threadCount: 2 }, isLive: true },
    ]);
    expect(live.shown?.kernelsId).toBe(kernelsId(incumbent));
    expect(live.fit).toMatchObject({ fitId: 'roofline', logBand90: 0.05 });
    expect(live.errors[0]).toMatchObject({ steps: 'decode only', stepCount: 2, insideShare: 0.5 });
    const kernels = { deviceKind, modelHash, kernelsId: kernelsId(reference) };
    const asked = await api.fits.predictions.query({ ...span, kernels });
    expect(asked).toMatchObject({ shown: kernels, fit: null });
    expect(asked.drawn).toHaveLength(3);
    expect(asked.errors[0]).toMatchObject({ stepCount: 3, insideShare: null });
  });
});

test('where KV blocks had to leave, what was kept for a session until its next turn has a price', async () => {
  const at = 1_800_000_000_000 - 600_000;
  const step = (stepId: number, startedAt: number) =>
    stepRow({
      bootId: 'short of KV',
      stepId,
      startedAt,
      deviceMs: 0,
      kvUsedBlockCount: 14,
      kvBlockCount: 64,
    });
  await insertRows(
    telemetry,
    'steps',
    [{ ...step(1, at), evictedBlockCount: 3, recomputeDeviceMs: 250 }, step(2, at + 10_000)],
    'short-of-kv',
  );
  const turn = (requestId: string, arrivedMs: number, cachedTokenCount: number) =>
    requestRow({ requestId, session: 'agent', arrivedAt: at + arrivedMs, e2eMs: 1000, cachedTokenCount });
  await insertRows(telemetry, 'requests', [turn('t1', 0, 0), turn('t2', 3000, 160)], 'turns');
  await withApi(telemetry, async (api) => {
    const span = { fromMs: at, toMs: at + 60_000 };
    const ledger = await api.costs.ledger.query({ ...span, by: 'session' });
    // 250 ms computed again while 50 blocks stood idle for 10 s; 10 blocks of 16 tokens waited for 2 s.
    expect(ledger.kvDeviceMsPerBlockSecond).toBeCloseTo(0.5, 9);
    expect(ledger.groups).toMatchObject([{ key: 'agent', kvResidencyMs: 10, deviceMs: 0 }]);
  });
});

test("a group has its share of the energy that its workers' devices report, and a group of silent ones has none", async () => {
  const at = Math.floor(Date.now() / 1000) * 1000 - 7_200_000;
  const steps = [
    stepRow({ stepId: 1, startedAt: at, workerId: 'gpu-e', energyJoules: 0, deviceMs: 40 }),
    stepRow({ stepId: 2, startedAt: at + 1000, workerId: 'gpu-e', energyJoules: 600, deviceMs: 60 }),
  ];
  await insertRows(telemetry, 'steps', steps, 'energy-steps');
  const request = (requestId: string, session: string, workerId: string, decodeDeviceMs: number) =>
    requestRow({ requestId, session, workerId, arrivedAt: at, e2eMs: 1000, decodeDeviceMs });
  const requests = [request('e1', 'on-gpu', 'gpu-e', 25), request('e2', 'on-cpu', 'cpu-e', 10)];
  await insertRows(telemetry, 'requests', requests, 'energy-requests');
  await withApi(telemetry, async (api) => {
    const { groups } = await api.costs.ledger.query({ fromMs: at, toMs: at + 60_000, by: 'session' });
    expect(groups.map(({ key, energyJoules }) => [key, energyJoules])).toEqual([
      ['on-gpu', 150],
      ['on-cpu', null],
    ]);
  });
});

test('a ClickHouse that takes the connection and says nothing does not hold the page', async () => {
  const sockets: Socket[] = [];
  const silent = createServer((socket) => sockets.push(socket));
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  const client = createTelemetryClient(`http://u:p@127.0.0.1:${(silent.address() as AddressInfo).port}`);
  await withApi(client, async (api) => {
    expect(await api.overview.summary.query({ windowMs: 60_000 })).toMatchObject({
      isReady: true,
      runningCount: 5,
      outputTokensPerSecond: null,
      telemetryFault: 'ClickHouse did not answer within 3 seconds.',
    });
    await expect(api.regimes.list.query({ fromMs: 0, toMs: 5 })).rejects.toThrow('did not answer within 3 s');
  });
  await client.close();
  for (const socket of sockets) socket.destroy();
  await new Promise((resolve) => silent.close(resolve));
});

test('no store at all is said in a sentence', async () => {
  await expect(answerOf(null, async () => 1)).rejects.toThrow('There is no ClickHouse');
});
