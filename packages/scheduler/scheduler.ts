/**
 * Decides what every step computes, and keeps the books: continuous batching, chunked prefill, prefix cache, preemption
 * by recompute, cancellation, accounts. Called by the worker's step loop and, on a virtual clock, by the optimizer's
 * replay. One owner of all sequences; no clock, no I/O, no randomness; which tokens come out never depends on it.
 *
 *   submit -> [ schedule -> (device runs the batch) -> settle ]* -> ended        cancel: at once, or at the next settle
 */
import { auditState } from './audit.ts';
import type { Batch, StepResult, StepSettlement } from './batch.ts';
import { type BlockHashing, sha256Hashing } from './block-hashing.ts';
import { BlockTables } from './block-tables.ts';
import { compose, preempt, type SchedulerLimits, type SchedulerState } from './compose.ts';
import { type DraftSourceOf, STARTING_ACCEPTANCE } from './drafts.ts';
import { MOST_WATCHED_TOKENS } from './guess-watch.ts';
import { type Leap, type LeapQuestion, leapSteps } from './leap.ts';
import { LookupIndex } from './lookup-index.ts';
import {
  endedSequence,
  isExpired,
  type OpenSequence,
  openSequence,
  remainingTokenCount,
} from './open-sequence.ts';
import { startingPace } from './prefill-room.ts';
import { ProgramService } from './program-service.ts';
import { assertCount, checkedLimits, SchedulerError } from './scheduler-limits.ts';
import type { EndedSequence, EndReason, SequenceSpec } from './sequence.ts';
import { endSequence, isFullLength, submissionFault, tokensLeft } from './sequence-end.ts';
import { type SchedulerCounts, type StepInFlight, settleStep } from './settle.ts';
import { featuresOf, type StepTimeFit } from './step-time.ts';
import { TenantService } from './tenant-service.ts';
import { WaitingQueue } from './waiting-queue.ts';

export type { SchedulerLimits } from './compose.ts';
export type { DraftSource, DraftSourceOf } from './drafts.ts';
export type { Leap, LeapQuestion } from './leap.ts';
export { SchedulerError } from './scheduler-limits.ts';
export type { SchedulerCounts } from './settle.ts';

export interface SchedulerOptions {
  readonly blockCount: number;
  /** Tokens a KV block holds. */
  readonly blockSize: number;
  readonly maxModelLenTokens: number;
  readonly limits: SchedulerLimits;
  /** Salts the prefix cache; names what decides bits. */
  readonly numericsId: string;
  /** How blocks are named; SHA-256 where it is not said. */
  readonly hashing?: BlockHashing;
  /** Of all sequences, 0 to 1: it is counted what guesses at their tokens would be worth. None where it is not said. */
  readonly watchedShare?: number;
  /** Where guesses come from; looked up in the sequence's own words where it is not said. */
  readonly draftSourceOf?: DraftSourceOf;
}

export class Scheduler {
  readonly #state: SchedulerState;
  readonly #watchedShare: number;
  #lastStepId = 0;
  #submissionCount = 0;
  /** By a shrinking pool; the next step tells of them. */
  #preemptedCount = 0;
  #inFlight: StepInFlight | null = null;

  constructor(options: SchedulerOptions) {
    assertCount('blockCount', options.blockCount);
    assertCount('blockSize', options.blockSize);
    assertCount('maxModelLenTokens', options.maxModelLenTokens);
    this.#watchedShare = options.watchedShare ?? 0;
    this.#state = {
      open: new Map(),
      programs: new ProgramService(),
      limits: checkedLimits(options.limits),
      numericsId: options.numericsId,
      fit: null,
      flexPace: startingPace(),
      running: [],
      waiting: new WaitingQueue(),
      tenants: new TenantService(),
      passedByCount: 0,
      tables: new BlockTables(options.blockCount, options.blockSize, options.hashing ?? sha256Hashing),
      maxModelLenTokens: options.maxModelLenTokens,
      draftSourceOf: options.draftSourceOf ?? (() => new LookupIndex()),
      admissionCount: 0,
      draftAcceptance: STARTING_ACCEPTANCE,
    };
  }

  /**
   * Takes a sequence in. Returns null while it is open; a sequence that has nothing to compute or could never fit ends
   * here and now, and is returned. Pass `now` minus its age for a sequence that has waited elsewhere.
   * @throws SchedulerError when a sequence of this id is open
   */
  submit(spec: SequenceSpec, now: number): EndedSequence | null {
    if (this.#state.open.has(spec.sequenceId)) {
      throw new SchedulerError(`The sequence ${spec.sequenceId} is open already.`);
    }
    this.#submissionCount += 1;
    const { programs, tenants } = this.#state;
    const handicapMs = programs.handicapMs(spec, tenants.usualWaitMs(spec), now);
    const sequence = openSequence(spec, this.#submissionCount, now, handicapMs, this.#shareToWatch());
    const fault = submissionFault(this.#state, sequence);
    if (fault !== '') return endedSequence(sequence, 'error', fault, now);
    if (isFullLength(this.#state, sequence)) return endedSequence(sequence, 'length', '', now);
    this.#state.open.set(spec.sequenceId, sequence);
    this.#state.waiting.add(sequence);
    this.#state.tenants.opened(sequence);
    return null;
  }

  /**
   * Ends a sequence early. Returns it ended; or null where no such sequence is open, or where it is in the step in
   * flight: then it ends at settle, and what the step decodes for it is discarded and charged as waste.
   */
  cancel(sequenceId: string, reason: 'cancelled' | 'stop', now: number): EndedSequence | null {
    const sequence = this.#state.open.get(sequenceId);
    if (sequence === undefined) return null;
    if (this.#inFlight?.composition.sequences.includes(sequence)) {
      sequence.endWith ??= reason;
      return null;
    }
    return this.#end(sequence, reason, '', now);
  }

  /**
   * Ends whatever has outlived its age limits; called before every step, so that none is spent on it.
   * @throws SchedulerError while a step is in flight
   */
  expire(now: number): EndedSequence[] {
    this.#assertBetweenSteps();
    return [...this.#state.open.values()]
      .filter((sequence) => isExpired(sequence, now))
      .map((sequence) => this.#end(sequence, 'expired', '', now));
  }

  /** The next step, or null when there is nothing to compute. @throws SchedulerError while a step is in flight */
  schedule(now: number): Batch | null {
    this.#assertBetweenSteps();
    if (this.#state.open.size === 0) return null;
    const stepId = this.takeStepId();
    const composition = compose(this.#state, stepId, now);
    const { entries } = composition;
    if (entries.length === 0)
      throw new SchedulerError('Open sequences, and none of them could be scheduled.');
    const batch: Batch = { stepId, entries, features: featuresOf(entries) };
    this.#inFlight = {
      ...{ batch, composition, counts: this.counts(), fit: this.#state.fit },
      preemptedBeforeCount: this.#preemptedCount,
    };
    this.#preemptedCount = 0;
    return batch;
  }

  /** Books the outcome of the step in flight. @throws SchedulerError when the result does not belong to it */
  settle(result: StepResult, now: number): StepSettlement {
    if (!(result.deviceMs >= 0 && Number.isFinite(result.deviceMs))) {
      throw new SchedulerError(`A step cannot take ${result.deviceMs} ms.`);
    }
    return settleStep(this.#state, this.#takeInFlight(result.stepId), result, now);
  }

  /**
   * As many of the next steps as are alike, booked at once: for a virtual clock, which says what they take. Null, and nothing
   * done, where the next step is not one in which all that run decode and nobody else changes anything: then schedule it.
   * A sequence that comes to its length ends with the last step.
   * @throws SchedulerError while a step is in flight
   */
  leap(question: LeapQuestion): Leap | null {
    this.#assertBetweenSteps();
    const leap = leapSteps(this.#state, question, this.#lastStepId + 1);
    this.#lastStepId += leap?.features.length ?? 0;
    return leap;
  }

  /** The device failed: every sequence of the step in flight ends with an error, the others go on. */
  abort(stepId: number, message: string, now: number): EndedSequence[] {
    const { composition, preemptedBeforeCount } = this.#takeInFlight(stepId);
    this.#preemptedCount += preemptedBeforeCount;
    return composition.sequences.map((sequence) =>
      sequence.endWith === null
        ? this.#end(sequence, 'error', message, now)
        : this.#end(sequence, sequence.endWith, '', now),
    );
  }

  /** Takes effect with the next step. Nobody is dropped: while more run than `maxRunningCount`, nobody comes in. */
  setLimits(limits: SchedulerLimits): void {
    this.#state.limits = checkedLimits(limits);
  }

  /**
   * The KV cache changes its format and holds so many blocks from now on. The prefix cache is empty afterwards; sequences
   * keep their blocks, except those with blocks beyond the new end, which are preempted. Returns the blocks whose contents
   * must be kept, ascending. Every open sequence must fit the new pool by itself. @throws SchedulerError in a step
   */
  setBlockCount(blockCount: number): number[] {
    this.#assertBetweenSteps();
    assertCount('blockCount', blockCount);
    const { running, tables } = this.#state;
    const beyond = running.filter(({ blockTable }) => blockTable.some((blockId) => blockId >= blockCount));
    const counted = { preemptionCount: 0 };
    for (const victim of beyond) preempt(this.#state, victim, counted);
    this.#preemptedCount += counted.preemptionCount;
    return tables.resize(blockCount);
  }

  /** True when no more sequences run than the limits allow. */
  isSettled(): boolean {
    return this.#state.running.length <= this.#state.limits.maxRunningCount;
  }

  /** From the next step on; salts the prefix cache and marks open sequences as mixed once such a step computes them. */
  setNumerics(numericsId: string): void {
    this.#state.numericsId = numericsId;
  }

  /** What predicts and charges the steps scheduled from now on, and bounds their prefills; null charges by tokens. */
  setFit(fit: StepTimeFit | null): void {
    this.#state.fit = fit;
  }

  /** A step id for a step that the caller composed itself (calibration, check); ids are never used twice. */
  takeStepId(): number {
    this.#lastStepId += 1;
    return this.#lastStepId;
  }

  counts(): SchedulerCounts {
    return {
      runningCount: this.#state.running.length,
      waitingCount: this.#state.waiting.count,
      kvUsedBlockCount: this.#state.tables.usedCount,
    };
  }

  /** Tokens of the waiting sequences, those that a cached prefix may spare included. */
  waitingTokenCount(): number {
    return this.#state.waiting.tokenCount;
  }

  /** Everything that its prefix cache holds, for a reader of the changes that comes later. */
  cachedBlockHashes(): string[] {
    return this.#state.tables.cachedBlockHashes();
  }

  /** Whether its prefix cache holds a block of this hash now. */
  hasCachedBlock(hash: string): boolean {
    return this.#state.tables.hasCached(hash);
  }

  get openCount(): number {
    return this.#state.open.size;
  }

  /** The fewest tokens that an open sequence may still generate; null where none is open. */
  leastTokensLeft(): number | null {
    let least: number | null = null;
    for (const sequence of this.#state.open.values()) {
      least = Math.min(least ?? Number.POSITIVE_INFINITY, tokensLeft(this.#state, sequence));
    }
    return least;
  }

  openSequenceIds(): string[] {
    return [...this.#state.open.keys()];
  }

  /** The tightest ITL objective among the running sequences that decode; null where none does. */
  tightestItlMs(): number | null {
    let tightest: number | null = null;
    for (const sequence of this.#state.running) {
      if (remainingTokenCount(sequence) > 1 || sequence.spec.objectives.itlMs === 0) continue;
      tightest = Math.min(tightest ?? Number.POSITIVE_INFINITY, sequence.spec.objectives.itlMs);
    }
    return tightest;
  }

  /** Broken invariants of the block pool as sentences, none when it is sound. Cheap enough for an idle worker. */
  audit(): string[] {
    return auditState(this.#state);
  }

  /** None while as much is watched as memory is meant for. */
  #shareToWatch(): number {
    if (this.#watchedShare === 0) return 0;
    let tokenCount = 0;
    for (const { watch, tokenIds } of this.#state.open.values()) {
      if (watch !== null) tokenCount += tokenIds.length;
    }
    return tokenCount > MOST_WATCHED_TOKENS ? 0 : this.#watchedShare;
  }

  #assertBetweenSteps(): void {
    if (this.#inFlight === null) return;
    throw new SchedulerError(`Step ${this.#inFlight.batch.stepId} has not settled.`);
  }

  #takeInFlight(stepId: number): StepInFlight {
    const inFlight = this.#inFlight;
    if (inFlight === null || inFlight.batch.stepId !== stepId) {
      throw new SchedulerError(`Step ${stepId} is not in flight.`);
    }
    this.#inFlight = null;
    return inFlight;
  }

  #end(sequence: OpenSequence, reason: EndReason, message: string, now: number): EndedSequence {
    return endSequence(this.#state, sequence, reason, message, now);
  }
}
