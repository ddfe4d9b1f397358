/**
 * What a worker does beside its live steps, one side step at a time: `calibrate` (times synthetic batches) and `check`
 * (generates from prompts, for equality), both on scratch KV blocks that the scheduler does not own. Called by the step
 * loop, which runs the steps and sends the answers. Decides when a side step may go; knows no clock and no device.
 */
import type { ExecutionPath } from '@variator/kernels/execution-path';
import type { BatchEntry } from '@variator/scheduler/batch';
import type { CalibrationCase, CheckPrompt, WorkerFrame } from '../fleet/link-frames.ts';
import { CheckGeneration, promptsFault } from './check-generation.ts';
import { caseFault, type ScratchBlocks, syntheticBatch } from './synthetic-batch.ts';

export interface SideWorkOptions {
  readonly scratchBlockIds: readonly number[];
  readonly blockSize: number;
  readonly vocabularySize: number;
  /** Most of the device's time, 0..1, that calibration may take, counted from the first call of `next`. */
  readonly calibrationShareLimit: number;
}

export interface LiveWork {
  /** True when the scheduler has nothing to run. */
  readonly isIdle: boolean;
  /** What the tightest running stream's ITL objective leaves for other work; null when no stream decodes. */
  readonly itlSlackMs: number | null;
  /** What the step would take by the fit of the path's kernels; null where there is none. */
  readonly predict: (path: ExecutionPath, entries: readonly BatchEntry[]) => number | null;
}

export interface SideStep {
  readonly kind: 'calibration' | 'check';
  readonly callId: string;
  readonly path: ExecutionPath;
  readonly entries: readonly BatchEntry[];
}

interface CalibrationCall {
  readonly callId: string;
  readonly path: ExecutionPath;
  readonly batches: BatchEntry[][];
  stepCount: number;
  deviceMs: number;
  /** The dearest token so far: prices a step that no fit can predict yet. */
  mostMsPerToken: number | null;
}

interface CheckCall {
  readonly callId: string;
  readonly path: ExecutionPath;
  readonly generation: CheckGeneration;
}

/** What the rule of side steps looks at; times in milliseconds. */
export interface SideStepQuestion {
  readonly kind: SideStep['kind'];
  readonly isIdle: boolean;
  readonly itlSlackMs: number | null;
  /** null where nothing is known about such a step. */
  readonly expectedMs: number | null;
  readonly liveStepsSinceSideStep: number;
  /** Spent on calibration so far, out of `elapsedMs` since the worker's first step. */
  readonly calibrationMs: number;
  readonly elapsedMs: number;
  readonly calibrationShareLimit: number;
}

const LIVE_STEPS_PER_SIDE_STEP = 3;
const MAX_CALLS = 16;
const MAX_CASES = 1000;
const MAX_PROMPTS = 256;

/**
 * An idle worker runs any side step. Beside live work one goes after every third live step: a check always, since a
 * person waits for it; a calibration where it fits what the streams' ITL objectives leave. Calibration keeps to its share
 * of the device's time in either case.
 */
export function canRunSideStep(question: SideStepQuestion): boolean {
  const { kind, isIdle, itlSlackMs, expectedMs, liveStepsSinceSideStep } = question;
  if (!isIdle && liveStepsSinceSideStep < LIVE_STEPS_PER_SIDE_STEP) return false;
  if (kind === 'check') return true;
  const isWithinShare =
    question.calibrationMs + (expectedMs ?? 0) <= question.calibrationShareLimit * question.elapsedMs;
  const isWithinSlack = isIdle || itlSlackMs === null || (expectedMs !== null && expectedMs <= itlSlackMs);
  return isWithinShare && isWithinSlack;
}

export class SideWork {
  readonly #options: SideWorkOptions;
  readonly #scratch: ScratchBlocks;
  #checks: CheckCall[] = [];
  #calibrations: CalibrationCall[] = [];
  #startedAt: number | null = null;
  #calibrationMs = 0;
  #liveStepsSinceSideStep = 0;
  /** Expected of the calibration step that its share held back last; 0 where nothing was known. */
  #heldBackMs = 0;

  constructor(options: SideWorkOptions) {
    this.#options = options;
    const { scratchBlockIds, blockSize, vocabularySize } = options;
    this.#scratch = { blockIds: scratchBlockIds, blockSize, vocabularySize };
  }

  /** Queues the cases, the smallest first. Returns the answers that are due at once: a refusal, or nothing to do. */
  addCalibration(callId: string, path: ExecutionPath, cases: readonly CalibrationCase[]): WorkerFrame[] {
    const fault =
      this.#queueFault(cases.length, MAX_CASES, 'calibration cases') ||
      cases.map((one) => caseFault(one, this.#scratch)).find((one) => one !== '') ||
      '';
    if (fault !== '' || cases.length === 0) {
      return [{ type: 'calibrated', callId, stepCount: 0, deviceMs: 0, fault }];
    }
    const random = seededRandom(20_260_101);
    const batches = cases
      .map((one) => syntheticBatch(one, this.#scratch, random))
      .sort((a, b) => tokenCount(a) - tokenCount(b));
    this.#calibrations.push({ callId, path, batches, stepCount: 0, deviceMs: 0, mostMsPerToken: null });
    return [];
  }

  /** Queues the prompts. Returns the answers that are due at once: a refusal, or nothing to do. */
  addCheck(callId: string, path: ExecutionPath, prompts: readonly CheckPrompt[]): WorkerFrame[] {
    const { scratchBlockIds, blockSize } = this.#options;
    const fault =
      this.#queueFault(prompts.length, MAX_PROMPTS, 'check prompts') ||
      promptsFault(prompts, scratchBlockIds.length, blockSize);
    if (fault !== '' || prompts.length === 0) return [{ type: 'checked', callId, outputs: [], fault }];
    const generation = new CheckGeneration(prompts, scratchBlockIds, blockSize);
    this.#checks.push({ callId, path, generation });
    return [];
  }

  /** The side step to run now, or null. A check keeps the scratch blocks to itself until it is through. */
  next(now: number, live: LiveWork): SideStep | null {
    this.#startedAt ??= now;
    const check = this.#checks[0];
    if (check !== undefined) {
      if (!canRunSideStep(this.#question('check', now, live, null))) return null;
      const { callId, path, generation } = check;
      return { kind: 'check', callId, path, entries: generation.next() };
    }
    const calibration = this.#calibrations[0];
    const entries = calibration?.batches[calibration.stepCount];
    if (calibration === undefined || entries === undefined) return null;
    const { callId, path, mostMsPerToken } = calibration;
    const byTokensMs = mostMsPerToken === null ? null : mostMsPerToken * tokenCount(entries);
    const expectedMs = live.predict(path, entries) ?? byTokensMs;
    this.#heldBackMs = expectedMs ?? 0;
    if (!canRunSideStep(this.#question('calibration', now, live, expectedMs))) return null;
    return { kind: 'calibration', callId, path, entries };
  }

  /** Books a side step that ran. Returns the answer when its call is through. */
  settle(step: SideStep, sampledTokenIds: ArrayLike<number>, deviceMs: number): WorkerFrame[] {
    this.#liveStepsSinceSideStep = 0;
    const { callId } = step;
    if (step.kind === 'check') {
      const check = this.#checks[0];
      if (check?.callId !== callId) return [];
      check.generation.settle(step.entries, sampledTokenIds);
      if (!check.generation.isDone()) return [];
      this.#checks.shift();
      return [{ type: 'checked', callId, outputs: check.generation.outputs(), fault: '' }];
    }
    this.#calibrationMs += deviceMs;
    const calibration = this.#calibrations[0];
    if (calibration?.callId !== callId) return [];
    calibration.stepCount += 1;
    calibration.deviceMs += deviceMs;
    const msPerToken = deviceMs / tokenCount(step.entries);
    calibration.mostMsPerToken = Math.max(calibration.mostMsPerToken ?? 0, msPerToken);
    if (calibration.stepCount < calibration.batches.length) return [];
    this.#calibrations.shift();
    const { stepCount, deviceMs: spentMs } = calibration;
    return [{ type: 'calibrated', callId, stepCount, deviceMs: spentMs, fault: '' }];
  }

  /** The device refused the step: its call ends with the fault. */
  fail(step: SideStep, message: string): WorkerFrame[] {
    this.#liveStepsSinceSideStep = 0;
    const { callId } = step;
    const fault = `A ${step.kind} step failed: ${message}`;
    if (step.kind === 'check') {
      if (this.#checks[0]?.callId !== callId) return [];
      this.#checks.shift();
      return [{ type: 'checked', callId, outputs: [], fault }];
    }
    const calibration = this.#calibrations[0];
    if (calibration?.callId !== callId) return [];
    this.#calibrations.shift();
    const { stepCount, deviceMs } = calibration;
    return [{ type: 'calibrated', callId, stepCount, deviceMs, fault }];
  }

  countLiveStep(): void {
    this.#liveStepsSinceSideStep += 1;
  }

  /** The gateway that asked is gone: nobody waits for the answers. A step in flight settles into nothing. */
  clear(): void {
    this.#checks = [];
    this.#calibrations = [];
  }

  /** How long an idle worker sleeps until a calibration step is within its share; null when nothing waits for that. */
  untilNextMs(now: number): number | null {
    const { calibrationShareLimit } = this.#options;
    if (this.#checks.length > 0) return 0;
    if (this.#calibrations.length === 0 || calibrationShareLimit <= 0) return null;
    const dueMs = (this.#calibrationMs + this.#heldBackMs) / calibrationShareLimit;
    return Math.max(0, dueMs - (now - (this.#startedAt ?? now)));
  }

  #question(
    kind: SideStep['kind'],
    now: number,
    { isIdle, itlSlackMs }: LiveWork,
    expectedMs: number | null,
  ): SideStepQuestion {
    return {
      kind,
      isIdle,
      itlSlackMs,
      expectedMs,
      liveStepsSinceSideStep: this.#liveStepsSinceSideStep,
      calibrationMs: this.#calibrationMs,
      elapsedMs: now - (this.#startedAt ?? now),
      calibrationShareLimit: this.#options.calibrationShareLimit,
    };
  }

  #queueFault(count: number, most: number, what: string): string {
    if (count > most) return `${count} ${what} in one call; at most ${most} are taken.`;
    return this.#checks.length + this.#calibrations.length >= MAX_CALLS
      ? `${MAX_CALLS} calls for calibration and checks are waiting already.`
      : '';
  }
}

function tokenCount(entries: readonly BatchEntry[]): number {
  return entries.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
}

/** Numbers in [0, 1), the same in every call (xorshift); only which tokens are timed depends on them. */
function seededRandom(seed: number): () => number {
  let state = seed;
  return () => {
    state ^= state << 13;
    state ^= state >>> 17;
    state ^= state << 5;
    return (state >>> 0) / 2 ** 32;
  };
}
