import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { insertRows } from '@variator/clickhouse/insert';
import { migrate } from '@variator/clickhouse/migrate';
import { latestFits } from '@variator/clickhouse/queries/fits';
import { regimeMarks } from '@variator/clickhouse/queries/regime-marks';
import { requestRow, startTestServer, stepRow, type TestServer } from '@variator/clickhouse/rows.fixture';
import { type ExecutionPath, kernelsId, pathId } from '@variator/kernels/execution-path';
import { type CalibrationShape, featuresOfShape } from '@variator/optimizer/calibration-cases';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import { seededRandom } from '@variator/optimizer/seeded-random';
import { predictMs, type StepFeatures } from '@variator/scheduler/step-time';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type AdminServer, createAdminServer } from '../../../apps/engine/api/admin-server.ts';
import type { Control } from '../../../apps/engine/control/control.ts';
import {
  envelope,
  incumbent,
  type ScriptedFleet,
  scriptedFleet,
} from '../../../apps/engine/control/fixtures/scripted-fleet.ts';
import { openControl } from '../../../apps/engine/control/open-control.ts';

const root = fileURLToPath(new URL('../../..', import.meta.url));
const narrow: ExecutionPath = { ...incumbent, maxRunningCount: 1 };
const folder = mkdtempSync(join(tmpdir(), 'optimizer-service-'));
const random = seededRandom(4);

let clickhouse: TestServer;
let telemetry: TelemetryClient;
let fleet: ScriptedFleet;
let control: Control;
let server: AdminServer;
let flags: string[];
let stepId = 0;

/** What the simulated machine takes for a step of these kernels. */
function deviceMsOf(path: ExecutionPath, features: StepFeatures): number {
  const roofline = rooflinePrior(envelope, path);
  const slower = { ...roofline, betaMs: { ...roofline.betaMs, perStep: 8 } };
  return predictMs(slower, features) * Math.exp(0.02 * random.normal());
}

const shape = (change: Partial<CalibrationShape>): CalibrationShape => ({
  decodeSequenceCount: 0,
  decodeContextTokens: 0,
  prefillTokens: 0,
  prefillContextTokens: 0,
  ...change,
});

async function insertSteps(
  kind: 'serve' | 'calibration',
  path: ExecutionPath,
  shapes: readonly CalibrationShape[],
) {
  const rows = shapes.map((one) => {
    const features = featuresOfShape(one);
    stepId += 1;
    return stepRow({
      ...features,
      startedAt: Date.now() - shapes.length + (stepId % 1000) / 1000,
      stepId,
      kind,
      modelHash: envelope.modelHash,
      pathId: pathId(path),
      kernelsId: kernelsId(path),
      deviceMs: deviceMsOf(path, features),
    });
  });
  await insertRows(telemetry, 'steps', rows, `steps ${stepId}`);
}

/** A quarter of a second of traffic, just ended. */
async function insertRequests(sizes: { prompt: number; answer: number; count: number }) {
  const rows = Array.from({ length: sizes.count }, (_, index) =>
    requestRow({
      arrivedAt: Date.now() - 500 + (250 * index) / sizes.count + 20 * random.uniform(),
      requestId: `r-${stepId}-${random.uniform()}`,
      session: `s-${random.uniform()}`,
      promptTokenCount: Math.round(sizes.prompt * (0.8 + 0.4 * random.uniform())),
      completionTokenCount: Math.round(sizes.answer * (0.8 + 0.4 * random.uniform())),
      e2eMs: 200 + 30 * random.uniform(),
    }),
  );
  await insertRows(telemetry, 'requests', rows, `requests ${random.uniform()}`);
}

function startService(more: readonly string[]): { child: ChildProcess; output: () => string } {
  const child = spawn(process.execPath, ['--import', 'tsx', 'packages/optimizer/service/main.ts', ...more], {
    cwd: root,
    stdio: ['pipe', 'pipe', 'pipe'],
  });
  let text = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream?.on('data', (chunk: Buffer) => {
      text += chunk.toString();
    });
  }
  return { child, output: () => text };
}

/** Goes on with `meanwhile` until there is an answer. */
async function until<Answer>(
  ask: () => Promise<Answer | null>,
  meanwhile: () => Promise<void>,
): Promise<Answer> {
  for (;;) {
    const answer = await ask();
    if (answer !== null) return answer;
    await meanwhile();
    await pause(250);
  }
}

beforeAll(async () => {
  clickhouse = await startTestServer();
  telemetry = createTelemetryClient(clickhouse.server.url);
  await migrate(telemetry);
  const scripted = scriptedFleet();
  fleet = {
    ...scripted,
    async calibrate(_workerId, path, cases) {
      await insertSteps('calibration', path, cases);
      return { stepCount: cases.length, deviceMs: cases.length };
    },
  };
  fleet.join(narrow);
  control = await openControl({
    file: join(folder, 'control.sqlite'),
    fleet,
    encode: async (text) => [...text].map((letter) => letter.charCodeAt(0)),
    log: () => undefined,
    now: Date.now,
  });
  server = createAdminServer({
    fleet,
    control,
    telemetry,
    recorder: { droppedRowCount: () => 0, fault: () => '' },
    modelId: envelope.modelId,
    now: Date.now,
    host: '127.0.0.1',
    port: 0,
    adminKey: 'a-key-of-the-test',
    log: () => undefined,
  });
  const { url } = await server.listen();
  writeFileSync(join(folder, 'admin-key'), 'a-key-of-the-test\n', { mode: 0o600 });
  writeFileSync(join(folder, 'clickhouse-url'), clickhouse.server.url, { mode: 0o600 });
  flags = ['--admin-url', url, '--admin-key-file', join(folder, 'admin-key')];
  flags.push('--fit-every-ms', '300', '--propose-every-ms', '300', '--regime-window-ms', '1000');
});
afterAll(async () => {
  await server.close();
  await control.close();
  await telemetry.close();
  await clickhouse.remove();
  rmSync(folder, { recursive: true, force: true });
});

test('it fits, calibrates, marks regimes and proposes, and ends when its parent lets go', async () => {
  const { child, output } = startService([...flags, '--clickhouse-url-file', join(folder, 'clickhouse-url')]);
  const chats = async () => {
    await insertRequests({ prompt: 40, answer: 20, count: 5 });
    await insertSteps('serve', narrow, [
      shape({ prefillTokens: 40 }),
      shape({ decodeSequenceCount: 1, decodeContextTokens: 50 }),
      shape({ decodeSequenceCount: 1, decodeContextTokens: 60 }),
    ]);
  };
  const proposal = await until(async () => (await control.proposals(10))[0] ?? null, chats);
  expect(proposal.from).toEqual(narrow);
  expect(proposal.to.maxRunningCount).toBeGreaterThan(1);
  expect(proposal.reason).toContain('were replayed through the scheduler');

  const fit = fleet.fitFor('cpu', envelope.modelHash, kernelsId(narrow));
  expect(fit?.sampleCount).toBeGreaterThanOrEqual(10);
  const stored = await latestFits(telemetry);
  expect(stored.map(({ kernelsId: id }) => id)).toContain(kernelsId(narrow));

  const firstName = await until(async () => control.regimeName() || null, chats);
  expect(firstName).toContain('short chats');
  const flood = () => insertRequests({ prompt: 450, answer: 6, count: 5 });
  const secondName = await until(async () => {
    const name = control.regimeName();
    return name === firstName ? null : name;
  }, flood);
  expect(secondName).toContain('short answers');
  const marks = await regimeMarks(telemetry, { fromMs: Date.now() - 3_600_000, toMs: Date.now() + 1000 });
  const confirmed = marks.filter(({ isConfirmed }) => isConfirmed).map(({ regimeId }) => regimeId);
  expect(new Set(confirmed).size).toBeGreaterThanOrEqual(2);

  // Each of the other kernels waits for its turn to be calibrated, and then for its fit.
  await until(async () => {
    const fitted = new Set((await latestFits(telemetry)).map(({ kernelsId: id }) => id));
    return fitted.size === envelope.linearVariants.length ? fitted : null;
  }, flood);

  child.stdin?.end();
  const [code] = await once(child, 'exit');
  expect(code).toBe(0);
  expect(output()).not.toContain('Error');
});

test('without ClickHouse or gateway it waits, says so once, and still ends when asked', async () => {
  const { child, output } = startService([
    '--admin-url',
    'http://127.0.0.1:9',
    '--clickhouse-url',
    'http://nobody:x@127.0.0.1:9',
    '--fit-every-ms',
    '50',
  ]);
  await until(
    async () => (output().includes('waiting:') ? true : null),
    async () => undefined,
  );
  await pause(500);
  expect(child.exitCode).toBeNull();
  const lines = output().split('\n');
  expect(lines.filter((line) => line.includes('waiting:')).length).toBeLessThanOrEqual(2);
  child.kill('SIGTERM');
  const [code] = await once(child, 'exit');
  expect(code).toBe(0);
});

test('a flag that is wrong ends it at once, with a sentence and the code that says not to try again', async () => {
  const { child, output } = startService([
    '--admin-url',
    'nonsense',
    '--clickhouse-url',
    'http://127.0.0.1:1',
  ]);
  const [code] = await once(child, 'exit');
  expect(code).toBe(78);
  expect(output().trim()).toBe('--admin-url must be an http URL.');
});
