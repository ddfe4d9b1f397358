/**
 * The heart of a worker: schedule -> run -> settle -> record, and between two steps whatever changes the path. Driven by
 * worker/main.ts with the gateway's frames. Owns scheduler, path plan and side work; decides nothing that pure code
 * (packages/scheduler, path-plan.ts, side-work.ts) can decide.
 */
import type { StepRow } from '@variator/clickhouse/step-row';
import { type AttentionVariantId, kvFormatOf } from '@variator/kernels/catalogue';
import {
  type ExecutionPath,
  kernelsId,
  kvBlockCountOf,
  numericsId,
  pathFaults,
  pathId,
} from '@variator/kernels/execution-path';
import { NativeError } from '@variator/kernels/native';
import { DeviceLostError } from '@variator/kernels/native-cuda';
import type { Batch } from '@variator/scheduler/batch';
import { Scheduler } from '@variator/scheduler/scheduler';
import type { EndedSequence } from '@variator/scheduler/sequence';
import { featuresOf, predictMs, type StepTimeFit } from '@variator/scheduler/step-time';
import type { WorkerFrame, WorkFrame } from '../fleet/link-frames.ts';
import type { Device } from './device.ts';
import { DeviceWatch } from './device-watch.ts';
import {
  advance,
  alternate,
  type PathPlan,
  type PlanStep,
  startOn,
  switchTo,
  untilNextBorderMs,
} from './path-plan.ts';
import { type SideStep, SideWork } from './side-work.ts';
import { stepRow } from './step-row.ts';

export interface StepLoopOptions {
  readonly device: Device;
  readonly path: ExecutionPath;
  readonly workerId: string;
  readonly bootId: string;
  readonly calibrationShareLimit: number;
  readonly now: () => number;
  readonly send: (frame: WorkerFrame) => void;
  readonly log: (line: string) => void;
}

/** After a switch the first steps still carry the state that the former limits made. */
const LEAST_SETTLING_STEPS = 2;
/** So many steps that fail in a row are no longer about what was asked: the device is lost, and with it the worker. */
const MOST_FAILED_STEPS = 8;
/** Of all sequences, where the device could verify guesses: it is counted what they would be worth. */
const WATCHED_SHARE = 1 / 4;
const ROWS_PER_FRAME = 64;
const ROW_DELAY_MS = 200;
const HASHES_PER_FRAME = 10_000;

export class StepLoop {
  readonly #options: StepLoopOptions;
  readonly #device: Device;
  readonly #watch: DeviceWatch;
  readonly #scheduler: Scheduler;
  readonly #sideWork: SideWork;
  readonly #fits = new Map<string, StepTimeFit>();
  #plan: PathPlan;
  /** The attention that the scheduler's KV blocks are kept for; a device begins with the reference's. */
  #kvAttention: AttentionVariantId;
  /** What frames ask of the path, kept for the next step border. */
  #changes: ((now: number) => void)[] = [];
  #lastLiveDeviceMs = 0;
  #failedStepCount = 0;
  #settlingSteps = 0;
  #lastStepId = 0;
  #auditedStepId = 0;
  #rows: StepRow[] = [];
  #rowsSince = 0;
  #isDraining = false;
  #isStopped = false;
  #wake: (() => void) | null = null;
  /** What came while the loop was between its looks at the world must not wait for the next arrival. */
  #isWoken = false;

  constructor(options: StepLoopOptions) {
    this.#options = options;
    this.#device = options.device;
    this.#watch = new DeviceWatch(options.device);
    const { envelope } = options.device;
    this.#plan = startOn(options.path);
    this.#kvAttention = 'attention.reference';
    this.#scheduler = new Scheduler({
      blockCount: envelope.kvBlockCount,
      blockSize: envelope.kvBlockSize,
      maxModelLenTokens: envelope.maxModelLenTokens,
      limits: options.path,
      numericsId: numericsId(options.path),
      watchedShare: envelope.maxDraftTokenCount > 0 ? WATCHED_SHARE : 0,
    });
    this.#sideWork = new SideWork({
      scratchBlockIds: options.device.scratchBlockIds,
      blockSize: envelope.kvBlockSize,
      vocabularySize: envelope.vocabularySize,
      calibrationShareLimit: options.calibrationShareLimit,
    });
  }

  livePath(): ExecutionPath {
    return this.#plan.live;
  }

  /** Runs until drained or stopped. @throws what the device throws that is no NativeError, or after too many of these */
  async run(): Promise<void> {
    while (!this.#isStopped) {
      this.#isWoken = false;
      const now = this.#options.now();
      for (const change of this.#changes.splice(0)) change(now);
      this.#enter(advance(this.#plan, now));
      await this.#keepKv();
      for (const ended of this.#scheduler.expire(now)) this.#sendEnded(ended);
      const batch = this.#scheduler.schedule(now);
      if (batch) await this.#serve(batch, now);
      const hasSideStep = await this.#stepAside(batch === null);
      if (batch !== null || hasSideStep) continue;
      this.#auditBooks();
      this.#flushRows();
      if (this.#isDraining) return;
      if (await this.#measureAside()) continue;
      await this.#untilWoken();
    }
    this.#flushRows();
  }

  stop(): void {
    this.#isStopped = true;
    this.#wakeUp();
  }

  heartbeat(): WorkerFrame {
    this.#watch.look(this.#options.now());
    return {
      type: 'heartbeat',
      ...this.#scheduler.counts(),
      pathId: pathId(this.#plan.live),
      deviceTelemetry: this.#watch.latest(),
    };
  }

  /** What a gateway that comes later must know before it hears of changes. */
  *cachedBlocks(): Generator<WorkerFrame> {
    const hashes = this.#scheduler.cachedBlockHashes();
    for (let at = 0; at < hashes.length; at += HASHES_PER_FRAME)
      yield { type: 'blocks', entered: hashes.slice(at, at + HASHES_PER_FRAME), left: [] };
  }

  /** The gateway is gone: nobody waits for these sequences, and nobody watches the canary. */
  forgetGateway(): void {
    for (const sequenceId of this.#scheduler.openSequenceIds()) {
      this.#scheduler.cancel(sequenceId, 'cancelled', this.#options.now());
    }
    this.#sideWork.clear();
    this.#changes = [() => this.#enter(switchTo(this.#plan, this.#plan.promoted))];
    this.#wakeUp();
  }

  receive(frame: WorkFrame): void {
    const { now, send } = this.#options;
    switch (frame.type) {
      case 'submit': {
        const ended = this.#scheduler.submit(frame.spec, now() - frame.ageMs);
        if (ended) this.#sendEnded(ended);
        break;
      }
      case 'cancel': {
        const ended = this.#scheduler.cancel(frame.sequenceId, frame.reason, now());
        if (ended) this.#sendEnded(ended);
        break;
      }
      case 'useFit':
        this.#fits.set(frame.fit.kernelsId, frame.fit);
        this.#scheduler.setFit(this.#fitFor(this.#plan.live));
        break;
      case 'prepare': {
        const { callId } = frame;
        const answer = (faults: readonly string[], prepareMs: number) =>
          send({ type: 'prepared', callId, faults, prepareMs });
        void this.#prepare(frame.path).then(
          ({ faults, prepareMs }) => answer(faults, prepareMs),
          (error: Error) => answer([error.message], 0),
        );
        break;
      }
      case 'switchTo': {
        const { path, rolloutId } = frame;
        // Kernels that were never made ready would make the step wait; this path may come from a ledger of another day.
        const refuse = (fault: string) => send({ type: 'switchRefused', pathId: pathId(path), fault });
        void this.#prepare(path).then(
          ({ faults }) => {
            if (faults.length > 0) return refuse(faults.join(' '));
            this.#changes.push(() => this.#enter(switchTo(this.#plan, path), rolloutId));
            this.#wakeUp();
          },
          (error: Error) => refuse(error.message),
        );
        break;
      }
      case 'alternate':
        this.#changes.push((at) => this.#enter(alternate(this.#plan, frame, at)));
        break;
      case 'calibrate':
        for (const answer of this.#sideWork.addCalibration(frame.callId, frame.path, frame.cases))
          send(answer);
        break;
      case 'check':
        for (const answer of this.#sideWork.addCheck(frame.callId, frame.path, frame.prompts)) send(answer);
        break;
      case 'drain':
        this.#isDraining = true;
        break;
      default:
        frame satisfies never;
    }
    this.#wakeUp();
  }

  async #prepare(path: ExecutionPath): Promise<{ faults: readonly string[]; prepareMs: number }> {
    const faults = pathFaults(path, this.#device.envelope);
    if (faults.length > 0) return { faults, prepareMs: 0 };
    const { prepareMs } = await this.#device.prepare(path);
    return { faults, prepareMs };
  }

  async #serve(batch: Batch, scheduledAt: number): Promise<void> {
    const { now, send } = this.#options;
    const { live } = this.#plan;
    const isSettling = this.#settlingSteps > 0 || !this.#scheduler.isSettled();
    const composedAt = now();
    const waitingTokenCount = this.#scheduler.waitingTokenCount();
    this.#lastStepId = batch.stepId;
    let result: Awaited<ReturnType<Device['run']>>;
    try {
      result = await this.#device.run(live, batch.entries, 'scheduled');
    } catch (error) {
      this.#endStep(batch, error as Error);
      return;
    }
    this.#failedStepCount = 0;
    const ranUntil = now();
    const settled = this.#scheduler.settle({ stepId: batch.stepId, ...result }, ranUntil);
    if (settled.events.length > 0) {
      const { events, accounts, starts } = settled;
      send({ type: 'tokens', stepId: batch.stepId, events, accounts, starts });
    }
    for (const ended of settled.ended) this.#sendEnded(ended);
    if (settled.enteredBlockHashes.length + settled.leftBlockHashes.length > 0) {
      send({ type: 'blocks', entered: settled.enteredBlockHashes, left: settled.leftBlockHashes });
    }
    this.#lastLiveDeviceMs = result.deviceMs;
    this.#sideWork.countLiveStep();
    if (this.#scheduler.isSettled()) this.#settlingSteps = Math.max(0, this.#settlingSteps - 1);
    this.#record(
      stepRow(
        this.#identity(),
        this.#plan,
        {
          stepId: batch.stepId,
          startedAt: scheduledAt,
          kind: 'serve',
          features: batch.features,
          entries: batch.entries,
          waitingTokenCount,
          deviceMs: result.deviceMs,
          wallMs: now() - scheduledAt,
          scheduleMs: composedAt - scheduledAt + (now() - ranUntil),
          foreignCpuShare: result.foreignCpuShare,
          energy: this.#watch.takeStepEnergy(),
          isSettling,
        },
        settled,
      ),
    );
  }

  /**
   * A step that the device refused ends its own sequences with an error each, and their blocks are free again; nothing ran,
   * so the others go on as if it had not been. Where the device is lost nobody's sequence is at fault: the worker ends, and
   * the gateway resumes them all elsewhere. @throws the fault where the device is lost or in doubt
   */
  #endStep({ stepId }: Batch, fault: Error): void {
    const { now, log } = this.#options;
    if (fault instanceof DeviceLostError) throw fault;
    const ended = this.#scheduler.abort(stepId, `The step failed: ${fault.message}`, now());
    for (const sequence of ended) this.#sendEnded(sequence);
    this.#failedStepCount += 1;
    if (!(fault instanceof NativeError) || this.#failedStepCount >= MOST_FAILED_STEPS) throw fault;
    log(`Step ${stepId} failed and ended its ${ended.length} sequences: ${fault.message}`);
  }

  /** Calibration and equality checks, beside live work. Returns whether a side step ran. */
  async #stepAside(isIdle: boolean): Promise<boolean> {
    const { now, send } = this.#options;
    const step = this.#sideWork.next(now(), {
      isIdle,
      itlSlackMs: this.#itlSlackMs(),
      predict: (path, entries) => {
        const fit = this.#fitFor(path);
        return fit ? predictMs(fit, featuresOf(entries)) : null;
      },
    });
    if (!step) return false;
    const startedAt = now();
    try {
      await this.#device.prepare(step.path);
      const { sampledTokenIds, deviceMs, foreignCpuShare } = await this.#device.run(
        step.path,
        step.entries,
        'scratch',
      );
      this.#record(this.#sideRow(step, startedAt, deviceMs, foreignCpuShare));
      for (const answer of this.#sideWork.settle(step, sampledTokenIds, deviceMs)) send(answer);
    } catch (error) {
      if (error instanceof DeviceLostError) throw error;
      for (const answer of this.#sideWork.fail(step, (error as Error).message)) send(answer);
    }
    return true;
  }

  /** Kernels that came while it served. Of a canary both sides keep what they began with. Returns whether anything was measured. */
  async #measureAside(): Promise<boolean> {
    if (this.#isStopped || this.#isWoken || this.#plan.plan !== null) return false;
    try {
      return await this.#device.measureAside();
    } catch (error) {
      // The prior does: no stream has to know.
      this.#options.log(`Kernels were not measured: ${(error as Error).message}`);
      return false;
    }
  }

  #sideRow(step: SideStep, startedAt: number, deviceMs: number, foreignCpuShare: number): StepRow {
    return stepRow(
      this.#identity(),
      { live: step.path, rolloutId: '', blockIndex: -1 },
      {
        stepId: this.#scheduler.takeStepId(),
        startedAt,
        kind: step.kind,
        features: featuresOf(step.entries),
        entries: step.entries,
        waitingTokenCount: this.#scheduler.waitingTokenCount(),
        deviceMs,
        wallMs: this.#options.now() - startedAt,
        scheduleMs: 0,
        foreignCpuShare,
        energy: this.#watch.takeStepEnergy(),
        isSettling: false,
      },
      this.#scheduler.counts(),
    );
  }

  /** What the tightest running stream's objective leaves after a step of the size that ran last; null when none decodes. */
  #itlSlackMs(): number | null {
    const tightest = this.#scheduler.tightestItlMs();
    if (tightest === null) return null;
    return Math.max(0, tightest - this.#lastLiveDeviceMs);
  }

  /** Where the live path's attention wants keys and values in another format, they are converted before the next step. */
  async #keepKv(): Promise<void> {
    const { live } = this.#plan;
    if (live.attention === this.#kvAttention) return;
    const before = this.#kvAttention;
    this.#kvAttention = live.attention;
    if (kvFormatOf(live.attention) === kvFormatOf(before)) return;
    const blockIds = this.#scheduler.setBlockCount(kvBlockCountOf(this.#device.envelope, live));
    const { convertMs } = await this.#device.keepKvFor(live, blockIds);
    const format = kvFormatOf(live.attention);
    this.#options.log(`${blockIds.length} KV blocks are ${format} now (${convertMs.toFixed(1)} ms).`);
  }

  /** Acts on a change of the path plan: limits, salt, fit; tells the gateway. */
  #enter(step: PlanStep, rolloutId = step.state.rolloutId): void {
    const { send } = this.#options;
    const before = this.#plan;
    this.#plan = step.state;
    if (step.ended) send({ type: 'alternated', ...step.ended });
    const { live } = step.state;
    if (pathId(live) !== pathId(before.live)) {
      this.#scheduler.setLimits(live);
      this.#scheduler.setNumerics(numericsId(live));
      this.#scheduler.setFit(this.#fitFor(live));
      this.#settlingSteps = LEAST_SETTLING_STEPS;
    }
    if (step.state !== before) {
      send({ type: 'pathChanged', path: live, stepId: this.#lastStepId, rolloutId });
    }
  }

  #fitFor(path: ExecutionPath): StepTimeFit | null {
    return this.#fits.get(kernelsId(path)) ?? null;
  }

  #identity() {
    const { workerId, bootId, device } = this.#options;
    return { workerId, bootId, envelope: device.envelope };
  }

  #sendEnded(ended: EndedSequence): void {
    this.#options.send({ type: 'ended', ended, pathId: pathId(this.#plan.live) });
  }

  #record(row: StepRow): void {
    if (this.#rows.length === 0) this.#rowsSince = this.#options.now();
    this.#rows.push(row);
    if (this.#rows.length >= ROWS_PER_FRAME || this.#options.now() - this.#rowsSince > ROW_DELAY_MS)
      this.#flushRows();
  }

  #flushRows(): void {
    if (this.#rows.length === 0) return;
    this.#options.send({ type: 'stepRows', rows: this.#rows });
    this.#rows = [];
  }

  /** With nothing left to compute every block must be back: a book that does not add up ends the worker, not a stream. */
  #auditBooks(): void {
    if (this.#auditedStepId === this.#lastStepId) return;
    this.#auditedStepId = this.#lastStepId;
    const faults = this.#scheduler.audit();
    if (faults.length > 0) throw new Error(`The scheduler's books are wrong: ${faults.join(' ')}`);
  }

  #wakeUp(): void {
    this.#isWoken = true;
    this.#wake?.();
    this.#wake = null;
  }

  /** Until a frame arrives, or time alone would end a block of the plan or let a side step go. */
  async #untilWoken(): Promise<void> {
    if (this.#isWoken) return;
    const now = this.#options.now();
    const waits = [untilNextBorderMs(this.#plan, now), this.#sideWork.untilNextMs(now)].filter(
      (ms) => ms !== null,
    );
    await new Promise<void>((resolve) => {
      const timer = waits.length === 0 ? null : setTimeout(() => this.#wakeUp(), Math.min(...waits) + 1);
      this.#wake = () => {
        if (timer) clearTimeout(timer);
        resolve();
      };
    });
  }
}
