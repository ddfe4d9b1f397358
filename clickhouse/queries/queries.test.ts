import { afterAll, beforeAll, expect, test } from 'vitest';
import { createTelemetryClient, type TelemetryClient } from '../client.ts';
import { insertRows } from '../insert.ts';
import { migrate } from '../migrate.ts';
import { requestRow, startTestServer, stepRow, type TestServer } from '../rows.fixture.ts';
import { arrivals } from './arrivals.ts';
import { costGroups } from './cost-groups.ts';
import { costSummary } from './cost-summary.ts';
import { fitRow, latestFits } from './fits.ts';
import { keptPrefixes } from './kept-prefixes.ts';
import { kernelsInSpan } from './kernels-in-span.ts';
import { kvPressure } from './kv-pressure.ts';
import { overviewSeries } from './overview-series.ts';
import { overviewSummary } from './overview-summary.ts';
import { pathItl } from './path-itl.ts';
import { pathSpans } from './path-spans.ts';
import { regimeMarks } from './regime-marks.ts';
import { regimeState } from './regime-state.ts';
import { settledSteps } from './settled-steps.ts';
import { stepPredictions } from './step-predictions.ts';
import { stepSample } from './step-sample.ts';
import { stepSamples } from './step-samples.ts';
import { tenantUsage } from './tenant-usage.ts';
import { tierDemand } from './tier-demand.ts';
import { workerSpans } from './worker-spans.ts';
import { workloadWindows } from './workload-windows.ts';

/** An hour's start, and recent: rows beyond their time to live are not kept. */
const t0 = Math.floor(Date.now() / 3_600_000 - 2) * 3_600_000;
const usdPerHour = 3.6;
const now = t0 + 3_600_000;
const empty = { fromMs: t0 - 1_800_000, toMs: t0 - 1_700_000 };
const span = { fromMs: t0, toMs: t0 + 30_000 };

/** Bucket 0: two steps and a calibration. Bucket 1: nothing. Bucket 2: a rollout's steps on another path. */
const steps = [
  stepRow({
    startedAt: t0 + 1000,
    stepId: 1,
    tokenCount: 100,
    prefillTokenCount: 100,
    prefillSequenceCount: 1,
    decodeSequenceCount: 0,
    cachedTokenCount: 20,
    emittedTokenCount: 1,
    deviceMs: 60,
    prefillDeviceMs: 30,
    recomputeDeviceMs: 30,
    foreignCpuShare: 0.1,
    prefillAttention: 5000.5,
  }),
  stepRow({
    startedAt: t0 + 2000,
    stepId: 2,
    emittedTokenCount: 29,
    deviceMs: 30,
    decodeDeviceMs: 30,
    itlMeanMs: 40,
    itlMaxMs: 44,
    itlTokenCount: 29,
  }),
  stepRow({ startedAt: t0 + 3000, stepId: 3, kind: 'calibration', deviceMs: 10, emittedTokenCount: 7 }),
  stepRow({ startedAt: t0 + 3500, stepId: 4, kind: 'check', deviceMs: 0, kernelsId: 'kernelsB' }),
  ...[0, 1, 2].map((index) =>
    stepRow({
      startedAt: t0 + 20_000 + index * 100,
      stepId: 5 + index,
      pathId: 'pathB',
      rolloutId: 'rollout',
      blockIndex: index === 2 ? -1 : index,
      isSettling: index === 0,
      emittedTokenCount: 1,
      itlMeanMs: 10 * (index + 1),
      itlTokenCount: 1,
      deviceMs: 5,
    }),
  ),
  stepRow({ startedAt: t0 + 21_000, stepId: 8, pathId: 'pathA', deviceMs: 5, emittedTokenCount: 1 }),
];

const requests = [
  requestRow({
    arrivedAt: t0 + 500,
    requestId: 'a',
    session: 's',
    promptTokenCount: 100,
    cachedTokenCount: 50,
    completionTokenCount: 10,
    ttftMs: 100,
    e2eMs: 2000,
    prefillDeviceMs: 40,
    decodeDeviceMs: 10,
  }),
  requestRow({
    arrivedAt: t0 + 1500,
    requestId: 'b',
    promptTokenCount: 10,
    completionTokenCount: 20,
    ttftMs: 300,
    e2eMs: 6000,
    isWithinObjectives: false,
  }),
  requestRow({ arrivedAt: t0 + 2500, requestId: 'c', finishReason: 'error', errorCode: 'x', e2eMs: 100 }),
  requestRow({ arrivedAt: t0 + 3500, requestId: 'd', session: 's', finishReason: 'cancelled', e2eMs: 100 }),
  // Refused: no question about work done counts it.
  requestRow({
    arrivedAt: t0 + 5000,
    requestId: 'refused',
    outcome: 'refused',
    finishReason: '',
    errorCode: 'rate_limit_exceeded',
    status: 429,
    e2eMs: 1,
    ttftObjectiveMs: 0,
    itlObjectiveMs: 0,
    isWithinObjectives: false,
  }),
  // Arrives in the first bucket, ends in the third.
  requestRow({ arrivedAt: t0 + 9000, requestId: 'e', ttftMs: 500, e2eMs: 12_000 }),
];

const fit = {
  fitId: 'fit2',
  deviceKind: 'cpu',
  modelHash: 'hash',
  kernelsId: 'kernelsA',
  fittedAt: t0 + 2.5,
  sampleCount: 12,
  kneeTokens: 4,
  betaMs: {
    perStep: 1,
    perToken: 0.5,
    perTokenAboveKnee: 0,
    perDecodeSequence: 0.1,
    perPrefillSequence: 0,
    perDecodeContextToken: 1e-5,
    perPrefillAttention: 1e-9,
  },
  heldOutMape: null,
  heldOutCount: 0,
  logBand90: 0.1,
  residuals: {
    center: [1, 2, 3, 0, 0],
    scale: [1, 1, 1, 1, 1],
    places: [0, 0.5, -0.5, 0, 0],
    weights: [3],
    logRatios: [0.04],
  },
};

let running: TestServer;
let client: TelemetryClient;
let reader: TelemetryClient;
beforeAll(async () => {
  running = await startTestServer();
  client = createTelemetryClient(running.server.url);
  reader = createTelemetryClient(running.server.readUrl);
  await migrate(client);
  await insertRows(client, 'steps', steps, 'steps');
  await insertRows(client, 'requests', requests, 'requests');
  await insertRows(
    client,
    'model_fits',
    [fitRow({ ...fit, fitId: 'fit1', fittedAt: t0 }), fitRow(fit)],
    'fits',
  );
  const mark = { features: '{}', detector: 'cusum' };
  await insertRows(
    client,
    'regimes',
    [
      { ...mark, regimeId: 'r1', name: 'chats', startedAt: t0, detectedAt: t0 + 10, isConfirmed: false },
      { ...mark, regimeId: 'r1', name: 'short chats', startedAt: t0, detectedAt: t0 + 20, isConfirmed: true },
      {
        ...mark,
        regimeId: 'r2',
        name: 'flood',
        startedAt: t0 + 9000,
        detectedAt: t0 + 9500,
        isConfirmed: false,
      },
    ],
    'regimes',
  );
});
afterAll(async () => {
  await Promise.all([client.close(), reader.close()]);
  await running.remove();
});

test('overview summary: rates over the span, percentiles, cost over prompt and completion tokens', async () => {
  const figures = await overviewSummary(reader, { ...span, usdPerHour, now });
  // 33 tokens sent to clients and 20 cached + 100 / 2 first-time prompt tokens; half the prefill was computed again.
  expect(figures.outputTokensPerSecond).toBeCloseTo(34 / 30);
  expect(figures.inputTokensPerSecond).toBeCloseTo(70 / 30);
  // 120 ms at 3.6 USD an hour is 1.2e-4 USD.
  expect(figures.costUsdPerMillionTokens).toBeCloseTo((1.2e-4 / 104) * 1e6);
  expect(figures).toMatchObject({
    requestCount: 5,
    errorCount: 1,
    sloAttainment: 2 / 4,
    lastStepAt: t0 + 21_000,
  });
  expect(figures.ttftP95Ms).toBeGreaterThan(300);
  expect(figures.ttftP95Ms).toBeLessThanOrEqual(500);
  expect(figures.itlP95Ms).toBeGreaterThan(30);
  expect(figures.itlP95Ms).toBeLessThanOrEqual(40);
});

test('where nothing was measured, figures are null and counts are zero', async () => {
  expect(await overviewSummary(reader, { ...empty, usdPerHour, now })).toEqual({
    requestCount: 0,
    errorCount: 0,
    outputTokensPerSecond: null,
    inputTokensPerSecond: null,
    ttftP95Ms: null,
    itlP95Ms: null,
    costUsdPerMillionTokens: null,
    sloAttainment: null,
    lastStepAt: t0 + 21_000,
  });
  expect(await costSummary(reader, { ...empty, usdPerHour, now })).toMatchObject({
    deviceMs: 0,
    promptTokenCount: 0,
    requestCount: 0,
    costUsdPerMillionTokens: null,
    deviceMsPerRequest: null,
  });
  expect(await pathSpans(reader, { ...empty, bucketMs: 1000, now })).toEqual([]);
  expect(await regimeMarks(reader, empty)).toEqual([]);
  expect(await tenantUsage(reader, { ...empty, now })).toEqual([]);
});

test('overview series: every bucket of the span, requests where they ended, an empty bucket is null', async () => {
  const points = await overviewSeries(reader, { ...span, bucketMs: 10_000, usdPerHour, now });
  expect(points.map((point) => point.at)).toEqual([t0, t0 + 10_000, t0 + 20_000]);
  expect(points.map((point) => point.requestCount)).toEqual([4, 0, 1]);
  expect(points[0]).toMatchObject({
    outputTokensPerSecond: 3,
    inputTokensPerSecond: 7,
    itlP50Ms: 40,
    itlP95Ms: 40,
    itlP99Ms: 40,
    sloAttainment: 1 / 3,
  });
  expect(points[0]?.costUsdPerMillionTokens).toBeCloseTo((1e-4 / 100) * 1e6);
  expect(points[1]).toEqual({
    at: t0 + 10_000,
    requestCount: 0,
    outputTokensPerSecond: null,
    inputTokensPerSecond: null,
    ttftP50Ms: null,
    ttftP95Ms: null,
    ttftP99Ms: null,
    itlP50Ms: null,
    itlP95Ms: null,
    itlP99Ms: null,
    costUsdPerMillionTokens: null,
    sloAttainment: null,
  });
  expect(points[2]).toMatchObject({ ttftP50Ms: 500, ttftP99Ms: 500, sloAttainment: 1, itlP50Ms: 20 });
});

test('overview series: the first and last bucket count only their part within the span', async () => {
  const points = await overviewSeries(reader, {
    fromMs: t0 + 1500,
    toMs: t0 + 4500,
    bucketMs: 3000,
    usdPerHour,
    now,
  });
  expect(points.map((point) => [point.at, point.outputTokensPerSecond])).toEqual([
    [t0, 29 / 1.5],
    [t0 + 3000, null],
  ]);
  await expect(overviewSeries(reader, { ...span, bucketMs: 1, usdPerHour, now })).rejects.toThrow(RangeError);
});

test('cost summary: the kinds of device ms, and calibration apart', async () => {
  expect(await costSummary(reader, { ...span, usdPerHour, now })).toEqual({
    deviceMs: 120,
    prefillDeviceMs: 30,
    decodeDeviceMs: 30,
    speculationWasteDeviceMs: 0,
    recomputeDeviceMs: 30,
    calibrationDeviceMs: 10,
    promptTokenCount: 70,
    completionTokenCount: 34,
    requestCount: 5,
    costUsdPerMillionTokens: expect.closeTo((1.2e-4 / 104) * 1e6),
    deviceMsPerRequest: 110 / 5,
  });
});

test('cost groups: charges and tokens by what requests have in common, the dearest first', async () => {
  const bySession = await costGroups(reader, { ...span, now, by: 'session', most: 10 });
  expect(bySession.map(({ key, requestCount }) => [key, requestCount])).toEqual([
    ['s', 2],
    ['', 3],
  ]);
  expect(bySession[0]).toMatchObject({
    goodRequestCount: 1,
    promptTokenCount: 100,
    cachedTokenCount: 50,
    completionTokenCount: 10,
    prefillDeviceMs: 40,
    decodeDeviceMs: 10,
    priorityDeviceMs: 0,
    defaultDeviceMs: 50,
    flexDeviceMs: 0,
  });
  // Late, failed and cancelled ones are not good.
  expect(bySession[1]?.goodRequestCount).toBe(1);
  for (const by of ['model', 'tier', 'tenant', 'program'] as const) {
    const groups = await costGroups(reader, { ...span, now, by, most: 10 });
    expect(groups.reduce((sum, { requestCount }) => sum + requestCount, 0)).toBe(5);
    expect(groups.reduce((sum, group) => sum + group.prefillDeviceMs + group.decodeDeviceMs, 0)).toBe(50);
  }
  expect(await costGroups(reader, { ...span, now, by: 'session', most: 1 })).toHaveLength(1);
  expect(await costGroups(reader, { ...empty, now, by: 'tier', most: 10 })).toEqual([]);
});

test('tier demand: the peak is that of all buckets, so what comes once in an hour has none', async () => {
  expect(await tierDemand(reader, { ...span, now })).toEqual([
    { serviceTier: 'default', deviceMs: 50, peakDeviceMs: 50 },
  ]);
  expect(await tierDemand(reader, { fromMs: t0 - 1_800_000, toMs: t0 + 1_800_000, now })).toEqual([
    { serviceTier: 'default', deviceMs: 50, peakDeviceMs: 0 },
  ]);
});

test('worker spans and KV pressure: first to last step, and blocks that stood idle while none had to leave', async () => {
  expect(await workerSpans(reader, { ...span, now })).toEqual([
    { workerId: 'w1', fromMs: t0 + 1000, toMs: t0 + 21_005 },
  ]);
  expect(await kvPressure(reader, span)).toEqual({
    recomputeDeviceMs: 30,
    evictedBlockCount: 0,
    idleBlockSeconds: expect.closeTo(63 * 20.005, 6),
  });
  expect(await kvPressure(reader, empty)).toEqual({
    recomputeDeviceMs: 0,
    evictedBlockCount: 0,
    idleBlockSeconds: 0,
  });
});

test('step sample: served steps with their features, the same ones each time', async () => {
  const some = await stepSample(reader, span);
  expect(some).toHaveLength(6);
  expect(await stepSample(reader, span)).toEqual(some);
  expect(some).toContainEqual({
    deviceKind: 'cpu',
    modelHash: 'hash',
    kernelsId: 'kernelsA',
    tokenCount: 100,
    decodeSequenceCount: 0,
    prefillSequenceCount: 1,
    prefillTokenCount: 100,
    decodeContextTokens: 10,
    prefillAttention: 5000.5,
    deviceMs: 60,
  });
});

test('kept prefixes: cached tokens by the seconds that they waited for the next turn of their session', async () => {
  const at = t0 + 900_000;
  const turn = (requestId: string, session: string, arrivedMs: number, cachedTokenCount: number) =>
    requestRow({
      requestId: `kept-${requestId}`,
      tenant: 'keeper',
      program: session === 's1' ? 'p' : 'q',
      session,
      arrivedAt: at + arrivedMs,
      e2eMs: 1000,
      cachedTokenCount,
    });
  const rows = [
    // What a session's first turn finds is not its own.
    turn('a', 's1', 0, 500),
    turn('b', 's1', 5000, 100),
    turn('c', 's1', 5200, 64),
    turn('d', 's2', 0, 0),
    turn('e', 's2', 3000, 10),
    turn('f', '', 9000, 400),
  ];
  await insertRows(client, 'requests', rows, 'kept');
  const asked = { fromMs: at, toMs: at + 60_000 };
  // b waited from 1000 to 5000; c came while b ran; e waited from 1000 to 3000.
  expect(await keptPrefixes(reader, { ...asked, by: 'session', keys: ['s1', 's2'] })).toEqual([
    { key: 's1', keptTokenSeconds: 400 },
    { key: 's2', keptTokenSeconds: 20 },
  ]);
  expect(await keptPrefixes(reader, { ...asked, by: 'program', keys: ['q'] })).toEqual([
    { key: 'q', keptTokenSeconds: 20 },
  ]);
  expect(await keptPrefixes(reader, { ...asked, by: 'tenant', keys: ['keeper'] })).toEqual([
    { key: 'keeper', keptTokenSeconds: 420 },
  ]);
  // A turn counts where it ended, and what came before it may lie before the span.
  const later = { fromMs: at + 4000, toMs: at + 60_000, by: 'tenant' as const, keys: ['keeper'] };
  expect(await keptPrefixes(reader, later)).toEqual([{ key: 'keeper', keptTokenSeconds: 420 }]);
  expect(await keptPrefixes(reader, { ...asked, by: 'tenant', keys: [] })).toEqual([]);
});

test('step predictions: how far off, in the band and out of it, disturbed or not, and what is drawn', async () => {
  const at = t0 + 600_000;
  const asked = { fromMs: at, toMs: at + 10_000, deviceKind: 'cpu', modelHash: 'hash', quietShare: 0.1 };
  const step = (stepId: number, deviceMs: number, more: Parameters<typeof stepRow>[0] = {}) =>
    stepRow({
      startedAt: at + stepId,
      stepId: 900 + stepId,
      kernelsId: 'foretold',
      predictedMs: 10,
      deviceMs,
      ...more,
    });
  await insertRows(
    client,
    'steps',
    [
      step(1, 10),
      step(2, 10.5),
      step(3, 20),
      step(4, 40, { foreignCpuShare: 0.5 }),
      step(5, 8, { prefillTokenCount: 7, tokenCount: 8 }),
      step(6, 9, { predictedMs: 0 }),
      step(7, 9, { kind: 'calibration' }),
    ],
    'foretold',
  );
  expect(await kernelsInSpan(reader, asked)).toEqual([
    { deviceKind: 'cpu', modelHash: 'hash', kernelsId: 'foretold', stepCount: 6, predictedStepCount: 5 },
  ]);
  const { errors, drawn } = await stepPredictions(reader, {
    ...asked,
    kernelsId: 'foretold',
    logBand90: 0.1,
  });
  const close = (value: number) => expect.closeTo(value, 9);
  const inBand = (1 - 10 / 10.5) / 2;
  expect(errors).toEqual([
    {
      steps: 'decode only',
      stepCount: 4,
      insideShare: 0.5,
      mape: close((2 * inBand + 0.5 + 0.75) / 4),
      insideMape: close(inBand),
      outsideMape: close((0.5 + 0.75) / 2),
    },
    {
      steps: 'with prefill',
      stepCount: 1,
      insideShare: 0,
      mape: close(0.25),
      insideMape: null,
      outsideMape: close(0.25),
    },
    {
      steps: 'all',
      stepCount: 5,
      insideShare: 0.4,
      mape: close((2 * inBand + 0.5 + 0.75 + 0.25) / 5),
      insideMape: close(inBand),
      outsideMape: close((0.5 + 0.75 + 0.25) / 3),
    },
    {
      steps: 'undisturbed',
      stepCount: 4,
      insideShare: 0.5,
      mape: close((2 * inBand + 0.5 + 0.25) / 4),
      insideMape: close(inBand),
      outsideMape: close((0.5 + 0.25) / 2),
    },
  ]);
  expect(drawn).toHaveLength(5);
  expect(drawn).toContainEqual({
    predictedMs: 10,
    deviceMs: 40,
    tokenCount: 1,
    decodeSequenceCount: 1,
    prefillTokenCount: 0,
    isQuiet: false,
  });
  const unbanded = await stepPredictions(reader, { ...asked, kernelsId: 'foretold', logBand90: null });
  expect(unbanded.drawn).toEqual(drawn);
  expect(unbanded.errors[0]).toMatchObject({ insideShare: null, insideMape: null, stepCount: 4 });
  expect(await stepPredictions(reader, { ...asked, kernelsId: 'none', logBand90: 0.1 })).toEqual({
    errors: [],
    drawn: [],
  });
});

test('path spans: runs of the same path in order, there and back', async () => {
  expect(await pathSpans(reader, { ...span, bucketMs: 1000, now })).toEqual([
    { workerId: 'w1', pathId: 'pathA', fromMs: t0 + 1000, toMs: t0 + 2030 },
    { workerId: 'w1', pathId: 'pathB', fromMs: t0 + 20_000, toMs: t0 + 20_205 },
    { workerId: 'w1', pathId: 'pathA', fromMs: t0 + 21_000, toMs: t0 + 21_005 },
  ]);
});

test('regime marks: each lasts until the next, a confirmed row replaces its first one', async () => {
  const chats = {
    regimeId: 'r1',
    name: 'short chats',
    startedAt: t0,
    detectedAt: t0 + 10,
    endedAt: t0 + 9000,
    isConfirmed: true,
  };
  const flood = {
    regimeId: 'r2',
    name: 'flood',
    startedAt: t0 + 9000,
    detectedAt: t0 + 9500,
    endedAt: null,
    isConfirmed: false,
  };
  expect(await regimeMarks(reader, span)).toEqual([chats, flood]);
  expect(await regimeMarks(reader, { fromMs: t0 + 1000, toMs: t0 + 2000 })).toEqual([chats]);
  expect(await regimeMarks(reader, { fromMs: t0 + 60_000, toMs: t0 + 70_000 })).toEqual([flood]);
});

test('regime marks: a suspicion lasts until it is refuted, and is gone once the change it stood for is confirmed', async () => {
  const at = t0 - 6 * 3_600_000;
  const mark = { features: '{}', detector: 'x', isConfirmed: true };
  const suspected = { ...mark, isConfirmed: false, name: 'perhaps' };
  await insertRows(
    client,
    'regimes',
    [
      { ...mark, regimeId: 'day', name: 'day', startedAt: at, detectedAt: at + 100 },
      { ...suspected, regimeId: 's1', startedAt: at + 1000, detectedAt: at + 1500 },
      { ...mark, regimeId: 'day', name: 'day', startedAt: at + 2000, detectedAt: at + 2000 },
      { ...suspected, regimeId: 's2', startedAt: at + 3000, detectedAt: at + 3400 },
      { ...mark, regimeId: 'night', name: 'night', startedAt: at + 2900, detectedAt: at + 3900 },
    ],
    'suspicions',
  );
  const seen = await regimeMarks(reader, { fromMs: at, toMs: at + 10_000 });
  expect(
    seen.map(({ regimeId, startedAt, endedAt }) => [regimeId, startedAt - at, (endedAt ?? 0) - at]),
  ).toEqual([
    ['day', 0, 1000],
    ['s1', 1000, 2000],
    ['day', 2000, 2900],
    ['night', 2900, t0 - at],
  ]);
  expect(seen.map(({ isConfirmed }) => isConfirmed)).toEqual([true, false, true, true]);
});

test('regime states: the newest of this detector with windows of this length', async () => {
  const question = { detector: 'a', windowMs: 15_000 };
  expect(await regimeState(reader, question)).toBeNull();
  const row = { ...question, savedAt: t0, state: 'old' };
  const rows = [
    row,
    { ...row, savedAt: t0 + 15_000, state: 'new' },
    { ...row, savedAt: t0 + 20_000, state: 'other windows', windowMs: 1000 },
    { ...row, savedAt: t0 + 20_000, state: 'other detector', detector: 'b' },
  ];
  await insertRows(client, 'regime_states', rows, 'states');
  expect(await regimeState(reader, question)).toBe('new');
});

test('fits: the newest of its kernels, as it was published', async () => {
  expect(await latestFits(reader)).toEqual([fit]);
});

test('step samples: the newest serving and calibration steps of these kernels with all features', async () => {
  const question = { ...span, deviceKind: 'cpu', modelHash: 'hash', kernelsId: 'kernelsA' };
  expect((await stepSamples(reader, { ...question, limit: 100 })).map(({ at }) => at - t0)).toEqual([
    21_000, 20_200, 20_100, 20_000, 3000, 2000, 1000,
  ]);
  expect(await stepSamples(reader, { ...question, toMs: t0 + 1500, limit: 1 })).toEqual([
    {
      at: t0 + 1000,
      kind: 'serve',
      tokenCount: 100,
      decodeSequenceCount: 0,
      prefillSequenceCount: 1,
      prefillTokenCount: 100,
      decodeContextTokens: 10,
      prefillAttention: 5000.5,
      deviceMs: 60,
      foreignCpuShare: 0.1,
    },
  ]);
  expect(await stepSamples(reader, { ...question, kernelsId: "' OR 1=1 --", limit: 9 })).toEqual([]);
});

test('arrivals: in order, the newest of the span, with objectives and account', async () => {
  const all = await arrivals(reader, { ...span, limit: 100 });
  expect(all.map(({ requestId }) => requestId)).toEqual(['a', 'b', 'c', 'd', 'e']);
  expect(all[0]).toMatchObject({
    arrivedAt: t0 + 500,
    session: 's',
    promptTokenCount: 100,
    cachedTokenCount: 50,
    deviceMs: 50,
    objectives: { ttftMs: 2000, itlMs: 100 },
  });
  expect((await arrivals(reader, { ...span, limit: 2 })).map(({ requestId }) => requestId)).toEqual([
    'd',
    'e',
  ]);
});

test('workload windows: features by arrival or by end, concurrency by overlap, empty windows without features', async () => {
  const question = { fromMs: t0, toMs: t0 + 31_000, windowMs: 10_000 };
  const byArrival = await workloadWindows(reader, { ...question, countedAt: 'arrival' });
  expect(byArrival.map(({ startedAt, requestCount }) => [startedAt, requestCount])).toEqual([
    [t0, 5],
    [t0 + 10_000, 0],
    [t0 + 20_000, 0],
  ]);
  expect(byArrival[0]?.meanLogPrompt).toBeCloseTo((Math.log(100) + Math.log(10)) / 5);
  expect(byArrival[0]?.p90LogPrompt).toBeCloseTo(Math.log(10) + 0.6 * (Math.log(100) - Math.log(10)));
  expect(byArrival[0]?.meanLog1pUncached).toBeCloseTo((Math.log(51) + Math.log(11)) / 5);
  expect(byArrival[0]?.meanLogOutput).toBeCloseTo((Math.log(10) + Math.log(20)) / 5);
  expect(byArrival[0]?.logArrivalRate).toBeCloseTo(Math.log(0.5));
  expect(byArrival[0]?.meanHitShare).toBeCloseTo(0.1);
  // a and d are of one session.
  expect(byArrival[0]?.sessionCount).toBe(4);
  expect(byArrival[0]?.logSessionRate).toBeCloseTo(Math.log(0.4));
  // Gaps 1000, 1000, 1000, 5500 ms: mean 2125, variance 3796875.
  expect(byArrival[0]?.logCv2).toBeCloseTo(Math.log(3_796_875 / 2125 ** 2));
  // 2000 + 6000 + 100 + 100 + 1000 ms of the first window; e fills the second and 1 s of the third.
  expect(byArrival.map(({ concurrency }) => concurrency)).toEqual([0.92, 1, 0.1]);
  expect(byArrival[1]).toMatchObject({
    meanLogPrompt: null,
    logCv2: null,
    logArrivalRate: null,
    meanHitShare: null,
  });

  const byEnd = await workloadWindows(reader, { ...question, countedAt: 'end' });
  expect(byEnd.map(({ requestCount }) => requestCount)).toEqual([4, 0, 1]);
  expect(byEnd[2]).toMatchObject({ meanLogPrompt: 0, logCv2: null, concurrency: 0.1 });
});

test('settled steps: the judged steps of a rollout by path', async () => {
  expect(await settledSteps(reader, { rolloutId: 'rollout' })).toEqual([
    {
      pathId: 'pathB',
      stepCount: 1,
      blockCount: 1,
      deviceMs: 5,
      prefillTokenCount: 0,
      decodeTokenCount: 1,
      decodeContextTokens: 10,
      emittedTokenCount: 1,
      itlP95Ms: 20,
      foreignCpuShare: 0,
    },
  ]);
});

test("a path's own gaps in a span: their p99, and null where there are too few to tell", async () => {
  const from = t0 - 7_200_000;
  const rows = Array.from({ length: 100 }, (_, index) =>
    stepRow({
      ...{ startedAt: from + 100 * index, stepId: 9000 + index, pathId: 'pathItl', emittedTokenCount: 20 },
      ...{ itlMeanMs: index < 98 ? 20 : 90, itlTokenCount: 20 },
    }),
  );
  const others = [
    stepRow({
      ...rows[0],
      startedAt: from,
      stepId: 9200,
      pathId: 'another',
      itlMeanMs: 999,
      itlTokenCount: 999,
    }),
    stepRow({
      ...rows[0],
      startedAt: from,
      stepId: 9201,
      pathId: 'pathItl',
      kind: 'check',
      itlMeanMs: 999,
      itlTokenCount: 999,
    }),
  ];
  await insertRows(client, 'steps', [...rows, ...others], 'path-itl');
  const ask = (toMs: number) =>
    pathItl(client, { workerId: rows[0]?.workerId ?? '', pathId: 'pathItl', fromMs: from, toMs });
  expect(await ask(from + 10_000)).toBeCloseTo(90, 0);
  expect(await ask(from + 9000)).toBeCloseTo(20, 0);
  expect(await ask(from + 4000)).toBeNull();
  expect(await ask(from)).toBeNull();
});
