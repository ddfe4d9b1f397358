/**
 * The worker of a simulated day: the real scheduler on a virtual clock, whose path may change between two steps, on a device
 * that is up to 5 % off what the fits say, and 2 % by each path. Used by simulated-day.fixture.ts and -play.fixture.ts.
 */
import {
  type Envelope,
  type ExecutionPath,
  kernelsId,
  numericsId,
  pathId,
} from '@variator/kernels/execution-path';
import { Scheduler } from '@variator/scheduler/scheduler';
import { predictMs, type StepTimeFit, type StepTimeModel } from '@variator/scheduler/step-time';
import type { JudgedStep } from './canary-judge.ts';
import { quantile } from './quantile.ts';
import type { Arrival } from './replay.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';
import { GENERATED_TOKEN_ID, promptsOf } from './synthetic-prompts.ts';
import { testEnvelope, testFit, testPath } from './test-world.ts';

export const MINUTE = 60_000;

export const envelope: Envelope = {
  ...testEnvelope,
  threadCount: 1,
  kvBlockCount: 4096,
  maxModelLenTokens: 8192,
};
/** One reads weights fast, one computes fast. */
export const KERNELS: readonly (readonly [ExecutionPath['linear'], StepTimeFit['betaMs']])[] = [
  ['linear.int8-avx512vnni', { ...testFit.betaMs, perStep: 4, perToken: 0.25, perTokenAboveKnee: 0.3 }],
  ['linear.reference', { ...testFit.betaMs, perStep: 7, perToken: 0.08, perTokenAboveKnee: 0.12 }],
];
const TERM_ERROR = 0.05;
const PATH_BIAS = 0.02;

export interface Reality {
  readonly deviceOf: (path: ExecutionPath) => StepTimeModel;
  readonly fitOf: (path: ExecutionPath) => StepTimeFit;
  readonly fits: readonly StepTimeFit[];
}

export function realityOf(seed: number): Reality {
  const random = seededRandom(70_001 + seed);
  const fits = KERNELS.map(([linear, betaMs]): StepTimeFit => {
    const path = { ...startPath, linear };
    return {
      ...testFit,
      fitId: linear,
      kernelsId: kernelsId(path),
      betaMs,
      heldOutMape: 0.04,
      logBand90: 0.08,
    };
  });
  const off = new Map(
    fits.map(({ kernelsId: id, betaMs }) => [
      id,
      scaledTerms(betaMs, () => 1 + TERM_ERROR * (2 * random.uniform() - 1)),
    ]),
  );
  const devices = new Map<string, StepTimeModel>();
  const fitOf = (path: ExecutionPath): StepTimeFit => {
    const fit = fits.find(({ kernelsId: id }) => id === kernelsId(path));
    if (fit === undefined) throw new Error('no such kernels');
    return fit;
  };
  const deviceOf = (path: ExecutionPath): StepTimeModel => {
    const id = pathId(path);
    const known = devices.get(id);
    if (known !== undefined) return known;
    const bias = Math.exp(PATH_BIAS * seededRandom(seed ^ Number.parseInt(id.slice(0, 7), 16)).normal());
    const fit = fitOf(path);
    const betaMs = scaledTerms(off.get(fit.kernelsId) ?? fit.betaMs, () => bias);
    const device = { kneeTokens: fit.kneeTokens, betaMs };
    devices.set(id, device);
    return device;
  };
  return { deviceOf, fitOf, fits };
}

function scaledTerms(betaMs: StepTimeFit['betaMs'], factor: () => number): StepTimeFit['betaMs'] {
  const terms = Object.entries(betaMs).map(([term, beta]) => [term, beta * factor()]);
  return { ...betaMs, ...Object.fromEntries(terms) };
}

export const startPath: ExecutionPath = {
  ...testPath,
  linear: 'linear.int8-avx512vnni',
  threadCount: 1,
  tokenBudget: 128,
  maxRunningCount: 16,
};

/** The worker of that day: its path may change between two steps. */
export class DayWorker {
  now = 0;
  path: ExecutionPath;
  /** Written by every step; emptied by whoever reads it. */
  steps: JudgedStep[] = [];
  /** By minute of the day. */
  readonly deviceMs: number[] = [];
  readonly goodCount: number[] = [];
  readonly #scheduler: Scheduler;
  readonly #open = new Map<string, { arrival: Arrival; firstAt: number; lastAt: number; gapsMs: number[] }>();
  readonly #random: SeededRandom;
  readonly #promptOf: (index: number) => number[];
  #next = 0;

  readonly arrivals: readonly Arrival[];
  readonly reality: Reality;

  constructor(arrivals: readonly Arrival[], reality: Reality, path: ExecutionPath, seed: number) {
    this.arrivals = arrivals;
    this.reality = reality;
    this.path = path;
    this.#random = seededRandom(seed);
    this.#promptOf = promptsOf(arrivals);
    this.#scheduler = new Scheduler({
      blockCount: envelope.kvBlockCount,
      blockSize: envelope.kvBlockSize,
      maxModelLenTokens: envelope.maxModelLenTokens,
      limits: path,
      numericsId: numericsId(path),
    });
    this.switchTo(path);
  }

  switchTo(path: ExecutionPath): void {
    this.path = path;
    this.#scheduler.setLimits({ tokenBudget: path.tokenBudget, maxRunningCount: path.maxRunningCount });
    this.#scheduler.setNumerics(numericsId(path));
    this.#scheduler.setFit(this.reality.fitOf(path));
  }

  runUntil(untilMs: number): void {
    while (this.now < untilMs) {
      this.#takeArrivals();
      const isSettling = !this.#scheduler.isSettled();
      const batch = this.#scheduler.schedule(this.now);
      if (batch === null) {
        this.now = Math.min(untilMs, this.arrivals[this.#next]?.at ?? untilMs);
        continue;
      }
      const deviceMs =
        predictMs(this.reality.deviceOf(this.path), batch.features) * Math.exp(0.05 * this.#random.normal());
      this.now += deviceMs;
      const minute = Math.floor(this.now / MINUTE);
      this.deviceMs[minute] = (this.deviceMs[minute] ?? 0) + deviceMs;
      const settled = this.#scheduler.settle(
        {
          stepId: batch.stepId,
          sampledTokenIds: batch.entries.map(({ isSampled }) => (isSampled ? GENERATED_TOKEN_ID : -1)),
          deviceMs,
        },
        this.now,
      );
      for (const { sequenceId } of settled.events) {
        const open = this.#open.get(sequenceId);
        if (open === undefined) continue;
        if (open.firstAt === 0) open.firstAt = this.now;
        else open.gapsMs.push(this.now - open.lastAt);
        open.lastAt = this.now;
      }
      for (const { sequenceId } of settled.ended) this.#end(sequenceId, minute);
      this.steps.push({
        ...batch.features,
        pathId: pathId(this.path),
        isSettling,
        deviceMs,
        prefillDeviceMs: settled.charge.prefillDeviceMs,
        recomputeDeviceMs: settled.charge.recomputeDeviceMs,
        itlMeanMs: settled.itlMeanMs,
        draftedTokenCount: settled.draftedTokenCount,
        acceptedDraftCount: settled.acceptedDraftCount,
        itlTokenCount: settled.itlTokenCount,
        foreignCpuShare: 0,
      });
      this.now += 0.3;
    }
  }

  takeSteps(): JudgedStep[] {
    const { steps } = this;
    this.steps = [];
    return steps;
  }

  #takeArrivals(): void {
    for (
      let arrival = this.arrivals[this.#next];
      arrival !== undefined && arrival.at <= this.now;
      arrival = this.arrivals[this.#next]
    ) {
      const sequenceId = String(this.#next);
      this.#open.set(sequenceId, { arrival, firstAt: 0, lastAt: 0, gapsMs: [] });
      this.#scheduler.submit(
        {
          sequenceId,
          promptTokenIds: this.#promptOf(this.#next),
          generatedTokenIds: [],
          sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
          maxTokens: arrival.completionTokenCount,
          stopTokenIds: [],
          tenant: '',
          program: '',
          serviceTier: arrival.serviceTier,
          objectives: arrival.objectives,
          ageLimits: null,
          cacheSalt: '',
        },
        arrival.at,
      );
      this.#next += 1;
    }
  }

  #end(sequenceId: string, minute: number): void {
    const open = this.#open.get(sequenceId);
    this.#open.delete(sequenceId);
    if (open === undefined) return;
    const { arrival, firstAt, gapsMs } = open;
    const { ttftMs, itlMs } = arrival.objectives;
    const isGood = firstAt - arrival.at <= ttftMs && (gapsMs.length === 0 || quantile(gapsMs, 0.95) <= itlMs);
    if (isGood) this.goodCount[minute] = (this.goodCount[minute] ?? 0) + 1;
  }
}
