/**
 * The step-time model on this repository's CPU worker: five scaled traces, each replayed twice and in turn. The model learns
 * from a trace's first window and is tested on the second windows: its own (in regime) and the others' (across). Beside it
 * the floor: how far steps of like shapes in the two windows are from one another's median, which no model can know.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { stepSamples } from '@variator/clickhouse/queries/step-samples';
import { kernelsId } from '@variator/kernels/execution-path';
import { fitStepTime } from '@variator/optimizer/fit-step-time';
import { median } from '@variator/optimizer/quantile';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import { isQuiet, type StepSample } from '@variator/optimizer/step-sample';
import { predictMs, type StepTimeModel } from '@variator/scheduler/step-time';
import { replayCommand } from '../../../apps/engine/cli/replay.ts';
import { root, startProduct } from '../../running-product.ts';
import { benchModel } from '../bench-model.ts';
import type { Figure } from '../figure.ts';

const traces = join(root, '..', 'shared', 'traces');
const azure = (name: string) => join(traces, 'azure-llm-2023', `AzureLLMInferenceTrace_${name}.csv`);
const TRAFFIC: Readonly<Record<string, readonly string[]>> = {
  conversation: [azure('conv'), '--scale', '0.1', '--speed', '1'],
  code: [azure('code'), '--scale', '0.15', '--speed', '1'],
  shared: [join(traces, 'mooncake', 'synthetic_trace.jsonl'), '--scale', '0.02', '--speed', '1'],
  reasoning: [join(traces, 'servegen', 'data', 'reason', 'deepseek-r1'), '--scale', '0.1', '--speed', '0.5'],
  agents: ['--agents', '--scale', '0.02'],
};
const WINDOW_S = 18;
const ROUNDS = 2;
/** Into the trace. */
const FROM_S = [0, 20];
/** Rows land half a second after their step. */
const ROWS_LAND_MS = 1500;

export async function benchStepTimeOnCpu(): Promise<readonly Figure[]> {
  const { path: model, label } = await benchModel();
  const product = await startProduct({ flags: ['--model', model] });
  const telemetry = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
  try {
    const [worker] = await product.admin.workers.list.query();
    if (worker === undefined) throw new Error('The product has no worker.');
    const windows = new Map<string, StepSample[][]>();
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const [name, flags] of Object.entries(TRAFFIC)) {
        const fromMs = Date.now();
        const bounds = ['--duration', `${WINDOW_S}`, '--max-in-flight', '24', '--seed', `${round + 1}`];
        const from = name === 'agents' ? [] : ['--from', `${FROM_S[round] ?? 0}`];
        await replayCommand([...flags, '--url', product.inferenceUrl, ...bounds, ...from]);
        await pause(ROWS_LAND_MS);
        const span = { fromMs, toMs: Date.now() };
        const steps = await served(telemetry, span, worker);
        windows.set(name, [...(windows.get(name) ?? []), steps]);
      }
    }
    return figuresOf(label, windows, rooflinePrior(worker.envelope, worker.path));
  } finally {
    await telemetry.close();
    await product.stop();
    product.removeData();
  }
}

type Worker = Awaited<
  ReturnType<Awaited<ReturnType<typeof startProduct>>['admin']['workers']['list']['query']>
>[number];

async function served(
  telemetry: TelemetryClient,
  span: { readonly fromMs: number; readonly toMs: number },
  { envelope, path }: Worker,
): Promise<StepSample[]> {
  const { deviceKind, modelHash } = envelope;
  const question = { ...span, deviceKind, modelHash, kernelsId: kernelsId(path), limit: 20_000 };
  return (await stepSamples(telemetry, question)).filter(({ kind }) => kind === 'serve');
}

function figuresOf(
  label: string,
  windows: ReadonlyMap<string, readonly StepSample[][]>,
  prior: ReturnType<typeof rooflinePrior>,
): Figure[] {
  const regimes = [...windows].map(([name, [learn = [], test = []]]) => ({ name, learn, test }));
  const figures: Figure[] = [];
  const within: number[] = [];
  const across: number[] = [];
  const floors: number[] = [];
  for (const from of regimes) {
    const model = fitStepTime({
      ...{ samples: from.learn, prior, deviceKind: 'cpu', modelHash: 'm', kernelsId: 'k', now: 0 },
    });
    const floor = floorOf(from.learn, from.test);
    const own = mape(model, undisturbed(from.test));
    const others = regimes
      .filter((to) => to !== from)
      .map((to) => ({ name: to.name, error: mape(model, undisturbed(to.test)) }));
    within.push(own);
    floors.push(floor);
    across.push(...others.map(({ error }) => error));
    const quietShare = from.test.filter(isQuiet).length / from.test.length;
    figures.push({
      figure: `${label}: learned from ${from.name}, on its own next window`,
      goal: '',
      measured: `${(100 * own).toFixed(1)} %`,
      interval:
        `floor ${(100 * floor).toFixed(1)} %; ${from.learn.length} and ${from.test.length} steps, ` +
        `${(100 * quietShare).toFixed(0)} % undisturbed; on ${others
          .map(({ name, error }) => `${name} ${(100 * error).toFixed(1)}`)
          .join(', ')} %`,
      isMet: null,
    });
  }
  const floor = mean(floors);
  const everything = fitStepTime({
    ...{ prior, deviceKind: 'cpu', modelHash: 'm', kernelsId: 'k', now: 0 },
    samples: regimes.flatMap(({ learn }) => learn),
  });
  const gate = (what: string, errors: readonly number[], most: number | null): Figure => ({
    figure: `${label}: mean error ${what}`,
    goal: most === null ? '' : `<= ${100 * most} %, or 1.3 x the floor`,
    measured: `${(100 * mean(errors)).toFixed(1)} %`,
    interval: `${(100 * Math.min(...errors)).toFixed(1)} to ${(100 * Math.max(...errors)).toFixed(1)} %; floor ${(100 * floor).toFixed(1)} %`,
    isMet: most === null ? null : mean(errors) <= Math.max(most, 1.3 * floor),
  });
  return [
    ...figures,
    gate('in regime', within, 0.08),
    gate('across regimes', across, 0.15),
    gate(
      'of one fit of all first windows, on the second ones',
      regimes.map(({ test }) => mape(everything, undisturbed(test))),
      null,
    ),
  ];
}

const LEAST_UNDISTURBED = 30;

/** All steps where other processes left hardly any alone: then errors and floor both hold their noise, and say so. */
function undisturbed(steps: readonly StepSample[]): readonly StepSample[] {
  const quiet = steps.filter(isQuiet);
  return quiet.length >= LEAST_UNDISTURBED ? quiet : steps;
}

/** Both windows' undisturbed steps of like shape against the median of their own. */
function floorOf(learn: readonly StepSample[], test: readonly StepSample[]): number {
  const shapes = new Map<string, number[]>();
  for (const step of undisturbed([...learn, ...test])) {
    const key = [
      step.decodeSequenceCount,
      step.prefillSequenceCount,
      step.prefillTokenCount,
      Math.floor(step.decodeContextTokens / 256),
      Math.floor(step.prefillAttention / 8192),
    ].join();
    shapes.set(key, [...(shapes.get(key) ?? []), step.deviceMs]);
  }
  const errors = [...shapes.values()]
    .filter((times) => times.length >= 4)
    .flatMap((times) => times.map((ms) => Math.abs(ms / median(times) - 1)));
  return mean(errors);
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

const mape = (model: StepTimeModel, steps: readonly StepSample[]): number =>
  mean(steps.map((step) => Math.abs(predictMs(model, step) / step.deviceMs - 1)));
