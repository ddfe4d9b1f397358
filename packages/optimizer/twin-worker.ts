/**
 * One worker on a virtual clock: the real scheduler, and in the device's place a step-time model with noise. Used by
 * twin.ts. It takes many like steps in one turn (Scheduler.leap); what comes of them is told to an observer.
 */
import {
  type Envelope,
  type ExecutionPath,
  kvBlockCountOf,
  numericsId,
} from '@variator/kernels/execution-path';
import type { Batch, StepSettlement } from '@variator/scheduler/batch';
import { virtualHashing } from '@variator/scheduler/block-hashing';
import { type DraftSourceOf, type Leap, type LeapQuestion, Scheduler } from '@variator/scheduler/scheduler';
import type { EndedSequence, SequenceSpec } from '@variator/scheduler/sequence';
import {
  predictMs,
  type StepFeatures,
  type StepTimeFit,
  type StepTimeModel,
  sevenTermsMs,
} from '@variator/scheduler/step-time';
import { MOST_NORMAL, type SeededRandom, seededRandom } from './seeded-random.ts';
import { GENERATED_TOKEN_ID } from './synthetic-prompts.ts';

export interface TwinWorkerOptions {
  readonly envelope: Envelope;
  readonly path: ExecutionPath;
  /** What scheduler and router know of the device. */
  readonly fit: StepTimeFit;
  /** What steps take; the fit where it is not said. */
  readonly device?: StepTimeModel;
  /** Spread of a step's log time around it, which stays the mean; 0 steps exactly by it. */
  readonly noise: number;
  /** What measured steps took, relative to it: drawn from for each step, in the noise's place. */
  readonly stepFactors?: readonly number[];
  readonly seed: number;
  /** What guesses are drawn from; where it is not said the path does not speculate, whatever its setting. */
  readonly draftSourceOf?: DraftSourceOf;
  /** Between two steps: composing, settling, sending. */
  readonly betweenStepsMs: number;
}

/** Hears of all that happens on a worker. `settledAt` is the worker's clock when a step had settled. */
export interface TwinObserver {
  stepped(batch: Batch, settled: StepSettlement, deviceMs: number, settledAt: number): void;
  leaped(leap: Leap): void;
}

/** A correction by residuals is at most a factor of e^0.5, either way. */
const LEAST_CORRECTION = Math.exp(-0.5);

export class TwinWorker {
  readonly options: TwinWorkerOptions;
  readonly scheduler: Scheduler;
  /** When its next step may begin. */
  now = Number.NEGATIVE_INFINITY;
  deviceMs = 0;
  stepCount = 0;
  readonly #device: StepTimeModel;
  readonly #random: SeededRandom;
  /** No step takes less. */
  readonly #leastStepMs: number;
  readonly #deviceMsOf: LeapQuestion['deviceMsOf'];

  constructor(options: TwinWorkerOptions) {
    const { envelope, path, noise, stepFactors: factors = [] } = options;
    this.options = options;
    this.#device = options.device ?? options.fit;
    this.scheduler = new Scheduler({
      blockCount: kvBlockCountOf(envelope, path),
      blockSize: envelope.kvBlockSize,
      maxModelLenTokens: envelope.maxModelLenTokens,
      limits: {
        tokenBudget: path.tokenBudget,
        maxRunningCount: path.maxRunningCount,
        draftTokenCount: options.draftSourceOf === undefined ? 0 : path.draftTokenCount,
      },
      ...(options.draftSourceOf === undefined ? {} : { draftSourceOf: options.draftSourceOf }),
      numericsId: numericsId(path),
      hashing: virtualHashing,
    });
    this.scheduler.setFit(options.fit);
    this.#random = seededRandom(options.seed);
    this.#leastStepMs =
      sevenTermsMs(this.#device, LEAST_STEP) *
      (this.#device.residuals === undefined ? 1 : LEAST_CORRECTION) *
      (factors.length > 0
        ? factors.reduce((least, factor) => Math.min(least, factor), Number.POSITIVE_INFINITY)
        : noiseFactor(noise, -MOST_NORMAL));
    const factorOf = (): number =>
      factors.length > 0
        ? (factors[this.#random.below(factors.length)] ?? 1)
        : noiseFactor(noise, this.#random.normal());
    const isExact = noise === 0 && factors.length === 0;
    this.#deviceMsOf = (features) => predictMs(this.#device, features) * (isExact ? 1 : factorOf());
  }

  get isIdle(): boolean {
    return this.scheduler.openCount === 0;
  }

  /** Takes a request in that has come at `at`; returns it where it ends at once. */
  submit(spec: SequenceSpec, at: number): EndedSequence | null {
    if (this.isIdle) this.now = Math.max(this.now, at);
    return this.scheduler.submit(spec, at);
  }

  /** No sequence of it ends before. */
  earliestEndAt(): number {
    const tokenCount = this.scheduler.leastTokensLeft();
    if (tokenCount === null) return Number.POSITIVE_INFINITY;
    return this.now + tokenCount * this.#leastStepMs + (tokenCount - 1) * this.options.betweenStepsMs;
  }

  /** One step, or as many like ones as begin before `untilMs`. Returns who ended, in order. */
  turn(untilMs: number, mostSteps: number, observer: TwinObserver): readonly EndedSequence[] {
    const { betweenStepsMs: betweenMs } = this.options;
    const tokenId = GENERATED_TOKEN_ID;
    const { now } = this;
    const leap = this.scheduler.leap({
      ...{ now, untilMs, mostSteps, betweenMs, tokenId },
      deviceMsOf: this.#deviceMsOf,
    });
    if (leap !== null) {
      this.now = leap.nextAt;
      for (const stepMs of leap.deviceMs) this.deviceMs += stepMs;
      this.stepCount += leap.deviceMs.length;
      observer.leaped(leap);
      return leap.ended;
    }
    const batch = this.scheduler.schedule(now);
    if (batch === null) return [];
    const deviceMs = this.#deviceMsOf(batch.features);
    const settledAt = now + deviceMs;
    const settled = this.scheduler.settle(
      {
        stepId: batch.stepId,
        sampledTokenIds: tokensOf(batch),
        afterDraftTokenIds: draftsOf(batch),
        deviceMs,
      },
      settledAt,
    );
    this.deviceMs += deviceMs;
    this.stepCount += 1;
    this.now = settledAt + betweenMs;
    observer.stepped(batch, settled, deviceMs, settledAt);
    return settled.ended;
  }

  /** Computes these prompts outside of all time and accounts: what the cache held before the first request came. */
  warm(prompts: readonly SequenceSpec[], now: number): void {
    for (const spec of prompts) this.scheduler.submit(spec, now);
    for (let batch = this.scheduler.schedule(now); batch !== null; batch = this.scheduler.schedule(now)) {
      this.scheduler.settle({ stepId: batch.stepId, sampledTokenIds: tokensOf(batch), deviceMs: 0 }, now);
    }
  }
}

/** 1 in the mean: a lognormal's median is less. */
const noiseFactor = (spread: number, normal: number): number => Math.exp(spread * normal - spread ** 2 / 2);

const tokensOf = ({ entries }: Batch): number[] =>
  entries.map(({ isSampled }) => (isSampled ? GENERATED_TOKEN_ID : -1));

/** Whatever it was to verify, the device goes on with the same token. */
const draftsOf = ({ entries }: Batch): (number[] | null)[] =>
  entries.map(({ draftCount = 0 }) =>
    draftCount === 0 ? null : new Array<number>(draftCount).fill(GENERATED_TOKEN_ID),
  );

const LEAST_STEP: StepFeatures = {
  tokenCount: 1,
  decodeSequenceCount: 0,
  prefillSequenceCount: 0,
  prefillTokenCount: 0,
  decodeContextTokens: 0,
  prefillAttention: 0,
};
