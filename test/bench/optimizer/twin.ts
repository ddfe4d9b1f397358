/**
 * The twin beside the product on this machine's CPU: scaled conversations, faster than the device can answer them all at once,
 * over eight execution paths. Each path has them twice in a row, equal arrivals and lengths with other words. Step times are
 * learned from all first windows; then the twin foretells the second ones from the arrivals that the product recorded. Beside its
 * errors the floor, second window against first; and its errors with step times learned from the second windows, which leaves
 * the twin's own. Its steps are drawn from how measured ones lay around the fit: others disturb them, and means feel it. What is gated is the mean over paths of the error of a path's mean; paths are ranked by device ms per request.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { arrivals as arrivalsOf } from '@variator/clickhouse/queries/arrivals';
import { stepSamples } from '@variator/clickhouse/queries/step-samples';
import { type Envelope, type ExecutionPath, kernelsId, parsePath } from '@variator/kernels/execution-path';
import { fitStepTime } from '@variator/optimizer/fit-step-time';
import { type Arrival, replay } from '@variator/optimizer/replay';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import type { StepSample } from '@variator/optimizer/step-sample';
import { predictMs, type StepTimeFit } from '@variator/scheduler/step-time';
import { replayCommand } from '../../../apps/engine/cli/replay.ts';
import { root, startProduct } from '../../running-product.ts';
import { benchModel } from '../bench-model.ts';
import type { Figure } from '../figure.ts';

const TRACE = join(root, '..', 'shared', 'traces', 'azure-llm-2023', 'AzureLLMInferenceTrace_conv.csv');
/** Token budget and running sequences. */
const LIMITS = [
  [16, 1],
  [16, 2],
  [32, 4],
  [64, 8],
  [128, 16],
  [512, 32],
] as const;
/** With the second fastest linear layers. */
const OTHER_KERNELS = [
  [32, 4],
  [128, 16],
] as const;
const WINDOWS = 2;
const REQUEST_COUNT = 120;
const ROWS_LAND_MS = 1500;
const SEED = 6;
/** Idle time between two steps is longer. */
const MOST_BETWEEN_MS = 20;

interface Means {
  readonly tokensPerSecond: number;
  readonly tpotMs: number;
  readonly ttftMs: number;
  readonly deviceMsPerRequest: number;
}

interface Run {
  readonly path: ExecutionPath;
  readonly arrivals: readonly Arrival[];
  readonly measured: Means;
  readonly steps: readonly StepSample[];
}

export async function benchTwin(): Promise<readonly Figure[]> {
  const { path: model, label } = await benchModel();
  const product = await startProduct({ flags: ['--model', model] });
  const telemetry = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
  try {
    const [worker] = await product.admin.workers.list.query();
    if (worker === undefined) throw new Error('The product has no worker.');
    const { envelope } = worker;
    const windows: Run[][] = Array.from({ length: WINDOWS }, () => []);
    for (const path of pathTexts(envelope)) {
      await product.admin.workers.switchTo.mutate({ workerId: worker.workerId, path });
      for (const [window, runs] of windows.entries()) {
        const fromMs = Date.now();
        const bounds = ['--limit', `${REQUEST_COUNT}`, '--seed', `${SEED + window}`];
        const flags = ['--scale', '0.1', '--speed', '8', '--url', product.inferenceUrl, ...bounds];
        await replayCommand([TRACE, ...flags]);
        await pause(ROWS_LAND_MS);
        runs.push(await runOf(telemetry, envelope, parsePath(path, envelope), fromMs, Date.now()));
      }
    }
    return figuresOf(label, envelope, windows);
  } finally {
    await telemetry.close();
    await product.stop();
    product.removeData();
  }
}

function pathTexts(envelope: Envelope): string[] {
  const [, other = 'linear.reference'] = envelope.linearVariants;
  const textOf = ([tokenBudget, maxRunningCount]: readonly [number, number], more = ''): string =>
    `balanced,tokenBudget=${tokenBudget},maxRunningCount=${maxRunningCount}${more}`;
  return [
    ...LIMITS.map((limits) => textOf(limits)),
    ...OTHER_KERNELS.map((limits) => textOf(limits, `,linear=${other}`)),
  ];
}

async function runOf(
  telemetry: TelemetryClient,
  { deviceKind, modelHash }: Envelope,
  path: ExecutionPath,
  fromMs: number,
  toMs: number,
): Promise<Run> {
  const rows = await arrivalsOf(telemetry, { fromMs, toMs, limit: 10_000 });
  const question = { fromMs, toMs, deviceKind, modelHash, kernelsId: kernelsId(path), limit: 20_000 };
  const steps = (await stepSamples(telemetry, question)).filter(({ kind }) => kind === 'serve').reverse();
  const tokens = rows.reduce((sum, { completionTokenCount }) => sum + completionTokenCount, 0);
  const endedAt = Math.max(...rows.map(({ arrivedAt, e2eMs }) => arrivedAt + e2eMs));
  return {
    path,
    steps,
    arrivals: rows.map(({ arrivedAt, ...row }) => ({ ...row, at: arrivedAt })),
    measured: {
      tokensPerSecond: tokens / ((endedAt - (rows[0]?.arrivedAt ?? 0)) / 1000),
      tpotMs: mean(
        rows.filter(({ completionTokenCount }) => completionTokenCount > 1).map(({ tpotMs }) => tpotMs),
      ),
      ttftMs: mean(rows.map(({ ttftMs }) => ttftMs)),
      deviceMsPerRequest: steps.reduce((sum, { deviceMs }) => sum + deviceMs, 0) / rows.length,
    },
  };
}

/** What the twin knows of the machine. */
interface Knowledge {
  readonly fits: ReadonlyMap<string, StepTimeFit>;
  /** By kernels. */
  readonly stepFactors: ReadonlyMap<string, readonly number[]>;
  readonly betweenStepsMs: number;
}

function foretold({ arrivals, path }: Run, envelope: Envelope, known: Knowledge): Means {
  const fit = known.fits.get(kernelsId(path));
  const stepFactors = known.stepFactors.get(kernelsId(path));
  if (fit === undefined || stepFactors === undefined) throw new Error('A path without a measured step.');
  const { outcome, requests } = replay({
    ...{ arrivals, path, fit, stepFactors, envelope, betweenStepsMs: known.betweenStepsMs },
    ...{ deviceUsdPerHour: 0, seed: SEED, drainMs: 600_000 },
  });
  return {
    tokensPerSecond: outcome.tokensPerSecond,
    deviceMsPerRequest: outcome.deviceMsPerRequest,
    ttftMs: mean(requests.map(({ ttftMs }) => ttftMs)),
    tpotMs: mean(requests.flatMap(({ gapsMs }) => (gapsMs.length === 0 ? [] : [mean(gapsMs)]))),
  };
}

function figuresOf(label: string, envelope: Envelope, [first = [], second = []]: readonly Run[][]): Figure[] {
  const saidFrom = (learnFrom: readonly Run[]): Means[] => {
    const known = learnedFrom(learnFrom, envelope);
    return second.map((run) => foretold(run, envelope, known));
  };
  const twin = saidFrom(first);
  const informed = saidFrom(second);
  const measured = second.map((run) => run.measured);
  const before = first.map((run) => run.measured);
  const errorsOf = (said: readonly Means[], key: keyof Means): number[] =>
    said.map((means, index) => Math.abs(means[key] / (measured[index]?.[key] ?? Number.NaN) - 1));
  const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;
  const gate = (what: string, key: keyof Means, most: number | null): Figure => {
    const errors = errorsOf(twin, key);
    return {
      figure: `${label}: the twin's ${what}, mean error over ${second.length} paths`,
      goal: most === null ? '' : `<= ${100 * most} %`,
      measured: percent(mean(errors)),
      interval:
        `${percent(Math.min(...errors))} to ${percent(Math.max(...errors))}; floor ${percent(mean(errorsOf(before, key)))}; ` +
        `with step times of the window itself ${percent(mean(errorsOf(informed, key)))}`,
      isMet: most === null ? null : mean(errors) <= most,
    };
  };
  const rank = (what: string, key: keyof Means, least: number | null): Figure => {
    const valuesOf = (means: readonly Means[]): number[] => means.map((each) => each[key]);
    const rho = spearman(valuesOf(twin), valuesOf(measured));
    return {
      figure: `${label}: rank correlation over ${second.length} paths, ${what}`,
      goal: least === null ? '' : `>= ${least}`,
      measured: rho.toFixed(2),
      interval: `first window against second ${spearman(valuesOf(before), valuesOf(measured)).toFixed(2)}`,
      isMet: least === null ? null : rho >= least,
    };
  };
  return [
    ...second.map(
      ({ path }, index): Figure => ({
        figure: `${label}: ${path.linear.replace('linear.', '')}, budget ${path.tokenBudget}, at most ${path.maxRunningCount} running`,
        goal: '',
        measured: inWords(measured[index] as Means),
        interval: `twin ${inWords(twin[index] as Means)}; before ${inWords(before[index] as Means)}`,
        isMet: null,
      }),
    ),
    gate('throughput', 'tokensPerSecond', 0.05),
    gate('mean TPOT', 'tpotMs', 0.1),
    gate('mean TTFT', 'ttftMs', 0.2),
    gate('device ms per request', 'deviceMsPerRequest', null),
    rank('device ms per request', 'deviceMsPerRequest', 0.8),
    rank('TPOT', 'tpotMs', null),
    rank('TTFT', 'ttftMs', null),
    {
      figure: `${label}: between two steps`,
      goal: '',
      measured: `${learnedFrom(first, envelope).betweenStepsMs.toFixed(2)} ms`,
      interval: 'mean of the first windows, given to the twin',
      isMet: null,
    },
  ];
}

/** A fit for each kernels' steps, which leaves disturbed ones out, and how long all steps took relative to it. */
function learnedFrom(runs: readonly Run[], envelope: Envelope): Knowledge {
  const { deviceKind, modelHash } = envelope;
  const fits = new Map<string, StepTimeFit>();
  const stepFactors = new Map<string, readonly number[]>();
  for (const { path } of runs) {
    const kernels = kernelsId(path);
    if (fits.has(kernels)) continue;
    const samples = runs.filter((run) => kernelsId(run.path) === kernels).flatMap(({ steps }) => steps);
    const prior = rooflinePrior(envelope, path);
    const fit = fitStepTime({ samples, prior, deviceKind, modelHash, kernelsId: kernels, now: 0 });
    fits.set(kernels, fit);
    stepFactors.set(
      kernels,
      samples.map((step) => step.deviceMs / predictMs(fit, step)),
    );
  }
  return { fits, stepFactors, betweenStepsMs: mean(runs.flatMap(({ steps }) => between(steps))) };
}

const inWords = ({ tokensPerSecond, tpotMs, ttftMs, deviceMsPerRequest }: Means): string =>
  `${tokensPerSecond.toFixed(0)} tokens/s, TPOT ${tpotMs.toFixed(1)}, TTFT ${ttftMs.toFixed(0)}, device ${deviceMsPerRequest.toFixed(0)} ms`;

/** From a step's end to the next one's start, while there was work. */
function between(steps: readonly StepSample[]): number[] {
  return steps.slice(1).flatMap((step, index) => {
    const before = steps[index];
    const gapMs = before === undefined ? Number.NaN : step.at - before.at - before.deviceMs;
    return gapMs >= 0 && gapMs < MOST_BETWEEN_MS ? [gapMs] : [];
  });
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

/** Without ties: measured means have none. */
function spearman(a: readonly number[], b: readonly number[]): number {
  const ranksOf = (values: readonly number[]): number[] =>
    values.map((value) => values.filter((other) => other < value).length);
  const [ranksA, ranksB] = [ranksOf(a), ranksOf(b)];
  const count = a.length;
  const squared = ranksA.reduce((sum, rank, index) => sum + (rank - (ranksB[index] ?? 0)) ** 2, 0);
  return 1 - (6 * squared) / (count * (count ** 2 - 1));
}
