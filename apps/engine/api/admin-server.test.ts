import { mkdtempSync, rmSync } from 'node:fs';
import { request } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createTRPCClient, httpBatchLink } from '@trpc/client';
import { kernelsId, pathId } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { afterEach, beforeEach, expect, test } from 'vitest';
import type { Control } from '../control/control.ts';
import {
  candidate,
  draft,
  envelope,
  incumbent,
  type ScriptedFleet,
  scriptedFleet,
} from '../control/fixtures/scripted-fleet.ts';
import { openControl } from '../control/open-control.ts';
import { type AdminServer, type AdminServerOptions, createAdminServer } from './admin-server.ts';
import type { AppRouter } from './router.ts';
import { assertSafeToListen } from './safe-to-listen.ts';

let folder: string;
let fleet: ScriptedFleet;
let control: Control;
let server: AdminServer;
let port: number;
let url: string;
const logged: string[] = [];

async function start(changes: Partial<AdminServerOptions> = {}): Promise<void> {
  server = createAdminServer({
    fleet,
    control,
    telemetry: null,
    recorder: { droppedRowCount: () => 3, fault: () => '' },
    modelId: 'stories-5m',
    now: Date.now,
    host: '127.0.0.1',
    port: 0,
    adminKey: null,
    log: (line) => logged.push(line),
    ...changes,
  });
  ({ port, url } = await server.listen());
}

const clientWith = (headers: Record<string, string>) =>
  createTRPCClient<AppRouter>({ links: [httpBatchLink({ url: `${url}/trpc`, headers })] });
const client = () => clientWith({ 'x-variator-client': 'ada' });

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'admin-'));
  fleet = scriptedFleet();
  control = await openControl({
    file: join(folder, 'control.sqlite'),
    fleet,
    encode: async (text) => [...text].map((letter) => letter.charCodeAt(0)),
    log: () => undefined,
    now: Date.now,
    drawSeed: () => 11,
  });
  logged.length = 0;
});
afterEach(async () => {
  await server.close();
  await control.close();
  rmSync(folder, { recursive: true });
});

const fit: StepTimeFit = {
  fitId: 'fit-1',
  deviceKind: 'cpu',
  modelHash: envelope.modelHash,
  kernelsId: kernelsId(incumbent),
  fittedAt: 1000,
  sampleCount: 100,
  kneeTokens: 8,
  betaMs: {
    perStep: 1,
    perToken: 0.1,
    perTokenAboveKnee: 0.2,
    perDecodeSequence: 0.01,
    perPrefillSequence: 0.05,
    perDecodeContextToken: 0.0001,
    perPrefillAttention: 0.00001,
  },
  heldOutMape: 0.03,
  heldOutCount: 20,
  logBand90: 0.05,
  residuals: {
    center: [1, 2, 3, 0, 0],
    scale: [1, 1, 1, 1, 1],
    places: [0, 0.5, -0.5, 0, 0],
    weights: [3],
    logRatios: [0.04],
  },
};

test('a fit whose residuals do not fit together is refused', async () => {
  await start();
  const fits = clientWith({ 'x-variator-client': 'optimizer' }).fits;
  const residuals = { ...fit.residuals, weights: [] } as NonNullable<StepTimeFit['residuals']>;
  await expect(fits.publish.mutate({ ...fit, residuals })).rejects.toThrow('equally many places');
});

test('the paths that a proposal was chosen from are told while it is open, and not with what was decided', async () => {
  await start();
  const api = client();
  const considered = [
    {
      changes: [],
      metrics: [{ metric: 'deviceMsPerRequest' as const, value: 100, interval: { low: 95, high: 105 } }],
      keepsObjectives: true,
    },
    { changes: draft.changes, metrics: [], keepsObjectives: false },
  ];
  const evidence = { ...draft.evidence, considered };
  const { proposalId } = await api.proposals.create.mutate({ ...draft, evidence });
  const [open] = await api.proposals.list.query({ limit: 1 });
  expect(open?.evidence).toEqual(evidence);
  await api.proposals.reject.mutate({ proposalId });
  const [decided] = await api.proposals.list.query({ limit: 1 });
  expect(decided).toMatchObject({ proposalId, state: 'rejected' });
  expect(decided?.evidence).toEqual(draft.evidence);
});

test('the whole way over a socket: propose, approve, canary, live, ledger, roll back', async () => {
  await start();
  const api = client();
  expect(await clientWith({ 'x-variator-client': 'optimizer' }).fits.publish.mutate(fit)).toEqual({
    fitId: 'fit-1',
  });
  const regime = { regimeId: 'r1', name: 'long prompts', startedAt: 1, detectedAt: 2 };
  await api.regimes.publish.mutate({ ...regime, endedAt: null, isConfirmed: true });
  fleet.script(candidate, { cost: 0.8 });
  const { proposalId } = await api.proposals.create.mutate(draft);
  expect(await api.proposals.list.query({ limit: 5 })).toMatchObject([{ proposalId, state: 'open' }]);
  const { rolloutId } = await api.proposals.approve.mutate({ proposalId });
  expect(await api.proposals.approve.mutate({ proposalId })).toEqual({ rolloutId });
  await expect
    .poll(async () => (await api.ledger.list.query({ limit: 5 })).length, { timeout: 20_000 })
    .toBe(1);
  expect(await api.rollouts.progress.query({ rolloutId })).toMatchObject({
    state: 'live',
    verdict: 'better',
  });

  const [summary, workers, paths, fits] = await Promise.all([
    api.overview.summary.query({ windowMs: 60_000 }),
    api.workers.list.query(),
    api.paths.list.query(),
    api.fits.list.query(),
  ]);
  expect(summary).toMatchObject({
    isReady: true,
    modelId: 'stories-5m',
    livePathId: pathId(candidate),
    livePath: candidate,
    regimeName: 'long prompts',
    runningCount: 5,
    waitingCount: 1,
    droppedRowCount: 3,
    ttftP95Ms: null,
    telemetryFault: 'There is no ClickHouse: nothing measured can be shown.',
  });
  expect(workers).toMatchObject([
    { workerId: 'w1', pathId: pathId(candidate), kernelsId: kernelsId(candidate) },
  ]);
  expect(workers[0]).not.toHaveProperty('fits');
  expect(paths.filter(({ isLive }) => isLive)).toMatchObject([{ name: 'throughput' }]);
  expect(fits).toEqual([fit]);

  expect(await api.rollouts.rollBack.mutate({ rolloutId })).toMatchObject({ state: 'rolledBack' });
  expect(await api.rollouts.list.query({ limit: 5 })).toMatchObject([{ rolloutId, state: 'rolledBack' }]);
  expect(await api.workers.switchTo.mutate({ workerId: 'w1', path: 'latency,maxRunningCount=1' })).toEqual({
    pathId: fleet.workers()[0]?.pathId,
  });
  expect(fleet.workers()[0]?.path).toMatchObject({ tokenBudget: 32, maxRunningCount: 1 });
  const cases = [
    { decodeSequenceCount: 4, decodeContextTokens: 400, prefillTokens: 0, prefillContextTokens: 0 },
  ];
  expect(await api.calibration.run.mutate({ workerId: 'w1', path: 'reference', cases })).toEqual({
    stepCount: 1,
    deviceMs: 10,
  });
  expect(await api.calibration.run.mutate({ workerId: 'w1', path: candidate, cases })).toMatchObject({
    stepCount: 1,
  });
});

test('every fault is a sentence with a code, and none shows a stack', async () => {
  await start();
  const api = client();
  const faults = [
    [() => api.rollouts.progress.query({ rolloutId: 'nope' }), 'NOT_FOUND', 'There is no rollout "nope".'],
    [
      () => api.workers.switchTo.mutate({ workerId: 'w9', path: 'latency' }),
      'SERVICE_UNAVAILABLE',
      'no worker "w9"',
    ],
    [
      () => api.workers.switchTo.mutate({ workerId: 'w1', path: 'fastest' }),
      'BAD_REQUEST',
      'no execution path "fastest"',
    ],
    [() => api.proposals.list.query({ limit: 1e6 }), 'BAD_REQUEST', 'limit: '],
    [() => api.objectives.set.mutate({ objectives: { itlMs: -1 } }), 'BAD_REQUEST', 'objectives.itlMs: '],
    [
      () => api.objectives.set.mutate({ autonomy: 'automatic' as 'observe' }),
      'BAD_REQUEST',
      'autonomy "automatic" waits until rollouts have been proved',
    ],
    [() => api.objectives.set.mutate({ speed: 3 } as object), 'BAD_REQUEST', 'speed'],
    [
      () => api.overview.series.query({ fromMs: 0, toMs: 86_400_000, bucketMs: 1000 }),
      'BAD_REQUEST',
      'at most 1000 buckets',
    ],
    [() => api.costs.summary.query({ fromMs: 5, toMs: 5 }), 'BAD_REQUEST', 'fromMs must be before toMs'],
    [() => api.costs.summary.query({ fromMs: 0, toMs: 5 }), 'SERVICE_UNAVAILABLE', 'There is no ClickHouse'],
  ] as const;
  for (const [call, code, sentence] of faults) {
    const error = await call().then(
      () => expect.fail(`"${sentence}" was expected`),
      (fault: unknown) => fault as { message: string; data: object },
    );
    expect(error.message).toContain(sentence);
    expect(error.data).toMatchObject({ code });
    expect(error.data).not.toHaveProperty('stack');
  }
});

test('the policy is read and changed in parts', async () => {
  await start();
  expect(await client().objectives.set.mutate({ objectives: { itlMs: 60 } })).toMatchObject({
    objectives: { ttftMs: 2000, itlMs: 60 },
  });
  expect(await client().objectives.get.query()).toMatchObject({ objectives: { itlMs: 60 } });
  expect(await client().rollouts.setKillSwitch.mutate({ isOn: true })).toMatchObject({
    isOn: true,
    changedBy: 'ada',
  });
  expect(await client().rollouts.killSwitch.query()).toMatchObject({ isOn: true });
});

/** Raw, since fetch would not send another Host. */
function send(method: string, path: string, headers: Record<string, string>, body = ''): Promise<number> {
  return new Promise((resolve, reject) => {
    const sent = request({ host: '127.0.0.1', port, method, path, headers }, (response) => {
      response.resume();
      response.on('end', () => resolve(response.statusCode ?? 0));
    });
    sent.on('error', reject);
    sent.end(body);
  });
}

const json = { 'content-type': 'application/json', 'x-variator-client': 'test' };
const setPolicy = '/trpc/objectives.set';
const getPolicy = '/trpc/objectives.get';
const change = JSON.stringify({ objectives: { itlMs: 70 } });

test.each<[string, string, string, Record<string, string>, string, number]>([
  ['a query', 'GET', getPolicy, {}, '', 200],
  ['health', 'GET', '/health', {}, '', 200],
  ['a mutation as it should be', 'POST', setPolicy, json, change, 200],
  [
    'a mutation from its own origin',
    'POST',
    setPolicy,
    { ...json, origin: 'http://localhost:PORT' },
    change,
    200,
  ],
  ['a name of another site (rebinding)', 'GET', getPolicy, { host: 'evil.example:PORT' }, '', 403],
  ['another port of this host', 'GET', getPolicy, { host: 'localhost:1' }, '', 403],
  ['localhost by name', 'GET', getPolicy, { host: 'localhost:PORT' }, '', 200],
  ['IPv6 loopback', 'GET', getPolicy, { host: '[::1]:PORT' }, '', 200],
  ['a foreign origin', 'POST', setPolicy, { ...json, origin: 'https://evil.example' }, change, 403],
  ['a foreign origin that reads', 'GET', getPolicy, { origin: 'https://evil.example' }, '', 403],
  ['an opaque origin', 'POST', setPolicy, { ...json, origin: 'null' }, change, 403],
  ['a mutation without its header', 'POST', setPolicy, { 'content-type': 'application/json' }, change, 403],
  ['a form', 'POST', setPolicy, { ...json, 'content-type': 'application/x-www-form-urlencoded' }, 'a=b', 415],
  [
    'a multipart form',
    'POST',
    setPolicy,
    { ...json, 'content-type': 'multipart/form-data; boundary=x' },
    '',
    415,
  ],
  ['plain text', 'POST', setPolicy, { ...json, 'content-type': 'text/plain' }, change, 415],
  ['a mutation by GET', 'GET', `${setPolicy}?input=${encodeURIComponent(change)}`, json, '', 405],
  ['a query by PUT', 'PUT', getPolicy, json, change, 405],
  ['a preflight', 'OPTIONS', setPolicy, { origin: 'https://evil.example' }, '', 405],
  ['broken JSON', 'POST', setPolicy, json, '{"objectives":', 400],
  ['a body too large', 'POST', setPolicy, json, `"${'a'.repeat(1024 * 1024)}"`, 413],
  [
    'a batch too large',
    'GET',
    `/trpc/${Array(30).fill('objectives.get').join(',')}?batch=1&input={}`,
    {},
    '',
    400,
  ],
  ['no such procedure', 'GET', '/trpc/objectives.nope', {}, '', 404],
  ['no such page', 'GET', '/admin', {}, '', 404],
])('%s', async (_, method, path, headers, body, status) => {
  await start();
  const before = control.policy().objectives.itlMs;
  const here = Object.entries(headers).map(([name, value]) => [name, value.replace('PORT', String(port))]);
  expect(await send(method, path, Object.fromEntries(here), body)).toBe(status);
  expect(control.policy().objectives.itlMs).toBe(body === change && status === 200 ? 70 : before);
});

test.each([
  [{}, 401],
  [{ authorization: 'Bearer wrong' }, 401],
  [{ authorization: 'Basic c2VjcmV0' }, 401],
  [{ authorization: 'Bearer secret-key' }, 200],
])('with an admin key, %j answers %i to queries and mutations', async (headers, status) => {
  await start({ adminKey: 'secret-key' });
  expect(await send('GET', getPolicy, headers)).toBe(status);
  expect(await send('POST', setPolicy, { ...json, ...headers }, change)).toBe(status);
  if (status === 401) {
    await expect(clientWith(headers).objectives.get.query()).rejects.toThrow(
      'The admin key is missing or wrong',
    );
  }
});

test.each<[string, string | null, string | null, string]>([
  ['127.0.0.1', null, null, ''],
  ['::1', null, null, ''],
  ['localhost', null, null, ''],
  ['0.0.0.0', null, null, 'set VARIATOR_API_KEY and VARIATOR_ADMIN_KEY first'],
  ['192.168.0.7', 'key', null, 'set VARIATOR_ADMIN_KEY first'],
  ['0.0.0.0', null, 'key', 'set VARIATOR_API_KEY first'],
  ['0.0.0.0', 'key', 'key', ''],
  ['127.0.0.1.evil.example', null, null, 'set VARIATOR_API_KEY'],
])('listening on %s with keys %s and %s: "%s"', async (host, apiKey, adminKey, sentence) => {
  await start();
  const listen = () => assertSafeToListen({ host, apiKey, adminKey });
  if (sentence === '') expect(listen).not.toThrow();
  else expect(listen).toThrow(sentence);
});
