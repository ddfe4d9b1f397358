/**
 * What choosing the execution path by the workload can be worth on this CPU: a day of phases (adaptive-plan.ts), each served by
 * every static path in turns, by the path that other seeds chose for it, and by one engine that switches at the borders. Keeps
 * its windows in results/engine-adaptive.json, so that rounds can be measured apart; gates nothing.
 */
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { type ExecutionPath, kernelsId, namedPaths } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { fitStepTime } from '@variator/optimizer/fit-step-time';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import type { StepSample } from '@variator/optimizer/step-sample';
import { table } from '../../../apps/engine/cli/table.ts';
import { generator } from '../../../apps/engine/cli/workload.ts';
import { root } from '../../running-product.ts';
import { benchModel } from '../bench-model.ts';
import type { Figure } from '../figure.ts';
import {
  adaptiveFigures,
  adaptiveTable,
  againArm,
  Rates,
  switchedArm,
  type Window,
} from './adaptive-figures.ts';
import * as plan from './adaptive-plan.ts';
import { trafficOf } from './adaptive-traffic.ts';
import { serveWindow, type Traffic } from './adaptive-window.ts';
import { type InProcessWorker, inProcessWorker } from './in-process-worker.ts';

export interface AdaptiveOptions {
  /** Measure so many of the rounds that are missing; null: all of them, from the beginning. */
  readonly roundCount: number | null;
  readonly seeds: keyof typeof plan.MEASURED_SEEDS;
}

interface Kept {
  /** Of the plan, the paths and the model. */
  readonly hash: string;
  readonly windows: readonly Window[];
}

const file = join(root, 'results', 'engine-adaptive.json');
/** Of each phase, on each path's kernels, before anything is measured: what their fits are made of. */
const FITTING_MS = 500;

export async function adaptive({ roundCount, seeds }: AdaptiveOptions): Promise<readonly Figure[]> {
  const { path: model, label } = await benchModel();
  const { tokenizer: parts, modelHash } = await loadModel(model);
  const tokenizer = new Tokenizer(parts.tokenizerJson, parts.tokenizerConfig);
  const encode = (text: string) => tokenizer.encode(text, { add_special_tokens: false }).ids;
  const worker = await inProcessWorker({
    model,
    path: (envelope) => namedPaths(envelope).balanced,
    kvMemoryBytes: plan.KV_MEMORY_BYTES,
    maxModelLenTokens: plan.MAX_MODEL_LEN_TOKENS,
    packedWeightsDir: null,
  });
  try {
    const paths = plan.staticPaths(worker.envelope);
    for (const path of Object.values(paths)) await worker.prepare(path);
    const hash = createHash('sha256')
      .update(JSON.stringify([plan, paths, modelHash]))
      .digest('hex');
    const windows: Window[] = [...(roundCount === null ? [] : keptWindows(hash))];
    const wanted = [...plan.CHOOSING_SEEDS, ...plan.MEASURED_SEEDS[seeds]];
    const missing = wanted.filter((seed) => !windows.some((window) => window.seed === seed));
    const next = missing.slice(0, roundCount ?? missing.length);
    if (next.length > 0) await learnFits(worker, paths, encode);
    for (const seed of next) {
      windows.push(...(await measureRound(worker, paths, encode, seed, windows)));
      mkdirSync(join(root, 'results'), { recursive: true });
      writeFileSync(file, `${JSON.stringify({ hash, windows } satisfies Kept, null, 1)}\n`);
    }
    return report(label, Object.keys(paths), windows, plan.MEASURED_SEEDS[seeds]);
  } finally {
    await worker.close();
  }
}

/** Those of the same plan, paths and model. */
function keptWindows(hash: string): readonly Window[] {
  if (!existsSync(file)) return [];
  const kept = JSON.parse(readFileSync(file, 'utf8')) as Kept;
  return kept.hash === hash ? kept.windows : [];
}

type Paths = Readonly<Record<string, ExecutionPath>>;
type Encode = (text: string) => readonly number[];

/** As the product does from its telemetry: scheduler and speculation predict steps by them. */
async function learnFits(worker: InProcessWorker, paths: Paths, encode: Encode): Promise<void> {
  const { envelope } = worker;
  const byKernels = new Map(Object.values(paths).map((path) => [kernelsId(path), path]));
  for (const [id, path] of byKernels) {
    const samples: StepSample[] = [];
    for (const phase of plan.phases) {
      const short = { ...phase, durationMs: FITTING_MS, isBesideBusyProcess: false };
      const traffic: Traffic = { phase: short, sequences: trafficOf(short, 0, encode), path };
      const rows = await serveWindow(worker, traffic, traffic, `fit ${id} ${phase.name}`);
      samples.push(...rows.steps);
    }
    const { deviceKind, modelHash } = envelope;
    const prior = rooflinePrior(envelope, path);
    worker.useFit(fitStepTime({ samples, prior, deviceKind, modelHash, kernelsId: id, now: Date.now() }));
  }
}

/** Every arm serves every phase; arms take turns within a phase, each phase and round in another order. */
async function measureRound(
  worker: InProcessWorker,
  paths: Paths,
  encode: Encode,
  seed: number,
  before: readonly Window[],
): Promise<Window[]> {
  const isChoosing = plan.CHOOSING_SEEDS.includes(seed);
  const chosen = new Rates(before).bestByPhase(plan.CHOOSING_SEEDS, Object.keys(paths));
  const pathOf = (arm: string, phase: plan.AdaptivePhase): ExecutionPath => {
    const name = arm === againArm ? plan.DEFAULT_ARM : arm === switchedArm ? chosen.get(phase.name) : arm;
    const path = paths[name ?? plan.DEFAULT_ARM];
    if (path === undefined) throw new Error(`There is no path ${name}.`);
    return path;
  };
  const arms = [...Object.keys(paths), ...(isChoosing ? [] : [againArm, switchedArm])];
  const windows: Window[] = [];
  for (const [index, phase] of plan.phases.entries()) {
    const former = plan.phases.at(index - 1) ?? phase;
    const traffic = trafficOf(phase, seed, encode);
    const formerTraffic = trafficOf(former, seed, encode);
    for (const arm of shuffled(arms, seed * 100 + index)) {
      const lead = { phase: former, sequences: formerTraffic, path: pathOf(arm, former) };
      const main = { phase, sequences: traffic, path: pathOf(arm, phase) };
      const { steps: _, ...served } = await serveWindow(worker, lead, main, `${seed} ${phase.name} ${arm}`);
      windows.push({ seed, phase: phase.name, arm, ...served });
    }
    const own = windows.slice(-arms.length).sort((a, b) => b.tokensPerSecond - a.tokensPerSecond);
    const inWords = own.map((window) => `${window.arm} ${window.tokensPerSecond.toFixed(0)}`);
    console.log(`    seed ${seed}, ${phase.name}: ${inWords.join(', ')}`);
  }
  return windows;
}

function report(
  label: string,
  staticArms: readonly string[],
  windows: readonly Window[],
  seeds: readonly number[],
): readonly Figure[] {
  const measuredSeeds = seeds.filter((seed) => windows.some((window) => window.seed === seed));
  const haveChoice = plan.CHOOSING_SEEDS.every((seed) => windows.some((window) => window.seed === seed));
  if (!haveChoice || measuredSeeds.length === 0) {
    console.log('  No round was measured yet beyond those that choose.');
    return [];
  }
  const durations = new Map(plan.phases.map(({ name, durationMs }) => [name, durationMs]));
  const judged = {
    ...{ label, windows, staticArms, measuredSeeds },
    choosingSeeds: plan.CHOOSING_SEEDS,
    defaultArm: plan.DEFAULT_ARM,
    durationMs: (phase: string) => durations.get(phase) ?? 0,
  };
  const [head = [], ...rows] = adaptiveTable(judged);
  console.log(table(head, rows));
  const counted = windows.filter(
    ({ seed, phase }) =>
      measuredSeeds.includes(seed) && !plan.phases.find(({ name }) => name === phase)?.isBesideBusyProcess,
  );
  const disturbed = counted.filter(({ foreignCpuShare }) => foreignCpuShare > plan.DISTURBED_SHARE);
  return [
    ...adaptiveFigures(judged),
    {
      figure: `${label}, windows with more than ${100 * plan.DISTURBED_SHARE} % of foreign CPU, none left out`,
      goal: '',
      measured: `${disturbed.length} of ${counted.length}`,
      interval: '',
      isMet: null,
    },
  ];
}

function shuffled(names: readonly string[], seed: number): string[] {
  const random = generator(seed);
  return names
    .map((name) => ({ name, key: random() }))
    .sort((a, b) => a.key - b.key)
    .map(({ name }) => name);
}
