/**
 * Decides what every step computes, and keeps the books: continuous batching, chunked prefill, prefix cache, preemption
 * by recompute, cancellation, accounts. Called by the worker's step loop and, on a virtual clock, by the optimizer's
 * replay. One owner of all sequences; no clock, no I/O, no randomness; which tokens come out never depends on it.
 *
 *   submit -> [ schedule -> (device runs the batch) -> settle ]* -> ended        cancel: at once, or at the next settle
 */
import { auditState } from './audit.ts';
import type { Batch, BatchEntry, StepCharge, StepResult, StepSettlement } from './batch.ts';
import { type BlockHashing, sha256Hashing } from './block-hashing.ts';
import { BlockTables } from './block-tables.ts';
import { type Composition, compose, preempt, type SchedulerLimits, type SchedulerState } from './compose.ts';
import { acceptedCount, noteAcceptance, STARTING_ACCEPTANCE } from './drafts.ts';
import { chargeLeap, type Leap, type LeapQuestion, planLeap, runLeap } from './leap.ts';
import {
  addToken,
  endedSequence,
  generatedTokenCount,
  isExpired,
  type OpenSequence,
  openSequence,
  remainingTokenCount,
  sequenceStart,
} from './open-sequence.ts';
import { notePace, startingPace } from './prefill-room.ts';
import { ProgramService } from './program-service.ts';
import type {
  Account,
  EndedSequence,
  EndReason,
  SequenceSpec,
  SequenceStart,
  TokenEvent,
  TokenLogprobs,
} from './sequence.ts';
import { chargedPerTokenMs, chargeStep, featuresOf, predictMs, type StepTimeFit } from './step-time.ts';
import { TenantService } from './tenant-service.ts';
import { WaitingQueue } from './waiting-queue.ts';

export type { SchedulerLimits } from './compose.ts';
export type { Leap, LeapQuestion } from './leap.ts';

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
}

export interface SchedulerCounts {
  readonly runningCount: number;
  readonly waitingCount: number;
  readonly kvUsedBlockCount: number;
}

/** A call that breaks the scheduler's contract: a wrong order of calls, an id used twice, limits out of range. */
export class SchedulerError extends Error {
  override readonly name = 'SchedulerError';
}

/** The world's: the gateway's permits keep far below it. */
export const MAX_OPEN_SEQUENCES = 100_000;

interface StepInFlight {
  readonly batch: Batch;
  readonly composition: Composition;
  readonly counts: SchedulerCounts;
  /** The fit of the kernels it runs on; a switch during the step brings another. */
  readonly fit: StepTimeFit | null;
}

export class Scheduler {
  readonly #maxModelLenTokens: number;
  readonly #state: SchedulerState;
  readonly #programs = new ProgramService();
  readonly #open = new Map<string, OpenSequence>();
  #lastStepId = 0;
  #submissionCount = 0;
  #inFlight: StepInFlight | null = null;

  constructor(options: SchedulerOptions) {
    assertCount('blockCount', options.blockCount);
    assertCount('blockSize', options.blockSize);
    assertCount('maxModelLenTokens', options.maxModelLenTokens);
    this.#maxModelLenTokens = options.maxModelLenTokens;
    this.#state = {
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
    if (this.#open.has(spec.sequenceId)) {
      throw new SchedulerError(`The sequence ${spec.sequenceId} is open already.`);
    }
    this.#submissionCount += 1;
    const handicapMs = this.#programs.handicapMs(spec, now);
    const sequence = openSequence(spec, this.#submissionCount, now, handicapMs);
    const fault = this.#submissionFault(sequence);
    if (fault !== '') return endedSequence(sequence, 'error', fault, now);
    if (this.#isFullLength(sequence)) return endedSequence(sequence, 'length', '', now);
    this.#open.set(spec.sequenceId, sequence);
    this.#state.waiting.add(sequence);
    this.#state.tenants.opened(sequence);
    return null;
  }

  /**
   * Ends a sequence early. Returns it ended; or null where no such sequence is open, or where it is in the step in
   * flight: then it ends at settle, and what the step decodes for it is discarded and charged as waste.
   */
  cancel(sequenceId: string, reason: 'cancelled' | 'stop', now: number): EndedSequence | null {
    const sequence = this.#open.get(sequenceId);
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
    return [...this.#open.values()]
      .filter((sequence) => isExpired(sequence, now))
      .map((sequence) => this.#end(sequence, 'expired', '', now));
  }

  /** The next step, or null when there is nothing to compute. @throws SchedulerError while a step is in flight */
  schedule(now: number): Batch | null {
    this.#assertBetweenSteps();
    if (this.#open.size === 0) return null;
    const stepId = this.takeStepId();
    const composition = compose(this.#state, stepId, now);
    const { entries } = composition;
    if (entries.length === 0)
      throw new SchedulerError('Open sequences, and none of them could be scheduled.');
    const batch: Batch = { stepId, entries, features: featuresOf(entries) };
    this.#inFlight = { batch, composition, counts: this.counts(), fit: this.#state.fit };
    return batch;
  }

  /** Books the outcome of the step in flight. @throws SchedulerError when the result does not belong to it */
  settle(result: StepResult, now: number): StepSettlement {
    if (!(result.deviceMs >= 0 && Number.isFinite(result.deviceMs))) {
      throw new SchedulerError(`A step cannot take ${result.deviceMs} ms.`);
    }
    const inFlight = this.#takeInFlight(result.stepId);
    const { batch, composition, counts, fit } = inFlight;
    notePace(this.#state.flexPace, composition, result.deviceMs);
    const accepted = batch.entries.map((entry, index) =>
      acceptedCount(entry, result.sampledTokenIds[index] ?? -1, result.afterDraftTokenIds?.[index]),
    );
    const charge = bookCharge(inFlight, result.deviceMs, accepted, (sequence, deviceMs) => {
      this.#state.tenants.charged(sequence, deviceMs);
      this.#programs.charged(sequence, deviceMs, now);
    });
    const events: TokenEvent[] = [];
    const accounts: Account[] = [];
    const starts: SequenceStart[] = [];
    const ended: EndedSequence[] = [];
    const gapsMs: number[] = [];
    let firstTokenCount = 0;
    let draftedTokenCount = 0;
    let acceptedDraftCount = 0;
    for (const [index, entry] of batch.entries.entries()) {
      const sequence = sequenceAt(composition, index);
      const { draftCount = 0 } = entry;
      sequence.computedTokenCount += entry.tokenIds.length - draftCount;
      this.#state.tables.offerFullBlocks(sequence);
      const logprobs = takeLogprobs(sequence, entry, result.logprobs?.[index]);
      if (sequence.endWith !== null) {
        ended.push(this.#end(sequence, sequence.endWith, '', now));
        continue;
      }
      if (!entry.isSampled) continue;
      const acceptedHere = accepted[index] ?? 0;
      draftedTokenCount += draftCount;
      acceptedDraftCount += acceptedHere;
      noteAcceptance(this.#state, sequence, draftCount, acceptedHere);
      for (let order = 0; order <= acceptedHere; order += 1) {
        const drawn = order === 0 ? result.sampledTokenIds : result.afterDraftTokenIds?.[index];
        const tokenId = drawn?.[order === 0 ? index : order - 1] ?? -1;
        const end = this.#tokenEnd(sequence, tokenId, now);
        if (end !== null) {
          ended.push(end);
          break;
        }
        const event: TokenEvent = {
          sequenceId: entry.sequenceId,
          tokenId,
          index: generatedTokenCount(sequence),
          ...(logprobs === undefined ? {} : { logprobs }),
          ...(sequence.promptLogprobs.length === 0 ? {} : { promptLogprobs: sequence.promptLogprobs }),
        };
        sequence.promptLogprobs = [];
        events.push(event);
        accounts.push({ ...sequence.account });
        if (event.index === 0) firstTokenCount += 1;
        if (sequence.lastTokenAt === null) starts.push(sequenceStart(sequence));
        if (sequence.lastTokenAt !== null && sequence.spec.objectives.itlMs > 0) {
          gapsMs.push(now - sequence.lastTokenAt);
        }
        sequence.lastTokenAt = now;
        addToken(sequence, tokenId);
        if (this.#isFullLength(sequence)) {
          ended.push(this.#end(sequence, 'length', '', now));
          break;
        }
        if (this.#isBeyondPool(sequence)) {
          ended.push(this.#end(sequence, 'error', this.#poolFault(sequence), now));
          break;
        }
        if (order === acceptedHere) break;
        // The guess was this token: its keys and values are there.
        sequence.computedTokenCount += 1;
        this.#state.tables.offerFullBlocks(sequence);
      }
      if (draftCount > 0) this.#state.tables.shrink(sequence, sequence.tokenIds.length);
    }
    const { entered, left } = this.#state.tables.takeCacheChanges();
    return {
      stepId: batch.stepId,
      events,
      accounts,
      starts,
      ended,
      charge,
      predictedMs: fit === null ? 0 : predictMs(fit, batch.features),
      fitId: fit?.fitId ?? '',
      enteredBlockHashes: entered,
      leftBlockHashes: left,
      cachedTokenCount: composition.cachedTokenCount,
      preemptionCount: composition.preemptionCount,
      ...counts,
      emittedTokenCount: events.length,
      firstTokenCount,
      draftedTokenCount,
      acceptedDraftCount,
      itlMeanMs: gapsMs.length === 0 ? 0 : gapsMs.reduce((sum, gap) => sum + gap, 0) / gapsMs.length,
      itlMaxMs: gapsMs.reduce((most, gap) => Math.max(most, gap), 0),
      itlTokenCount: gapsMs.length,
    };
  }

  /**
   * As many of the next steps as are alike, booked at once: for a virtual clock, which says what they take. Null, and nothing
   * done, where the next step is not one in which all that run decode and nobody else changes anything: then schedule it.
   * A sequence that comes to its length ends with the last step.
   * @throws SchedulerError while a step is in flight
   */
  leap(question: LeapQuestion): Leap | null {
    this.#assertBetweenSteps();
    const plan = planLeap(this.#state, question, (sequence) => this.#tokensLeft(sequence));
    if (plan === null) return null;
    const { sequences } = plan;
    const lastTokenAt = sequences.map((sequence) => sequence.lastTokenAt ?? question.now);
    const steps = runLeap(this.#state, plan, question);
    const stepCount = steps.features.length;
    const settledLast = steps.settledAt[stepCount - 1] ?? question.now;
    let chargedMs = 0;
    chargeLeap(sequences, steps, this.#state.fit, this.#programs, (sequence, deviceMs) => {
      this.#state.tenants.charged(sequence, deviceMs);
      chargedMs += deviceMs;
    });
    const firstStepId = this.#lastStepId + 1;
    this.#lastStepId += stepCount;
    const ended: EndedSequence[] = [];
    for (const sequence of sequences) {
      sequence.lastStepId = this.#lastStepId;
      sequence.lastTokenAt = settledLast;
      if (this.#isFullLength(sequence)) ended.push(this.#end(sequence, 'length', '', settledLast));
    }
    const { entered, left } = this.#state.tables.takeCacheChanges();
    return {
      ...steps,
      firstStepId,
      sequenceIds: sequences.map(({ spec }) => spec.sequenceId),
      lastTokenAt,
      chargedMs,
      ended,
      enteredBlockHashes: entered,
      leftBlockHashes: left,
    };
  }

  /** The device failed: every sequence of the step in flight ends with an error, the others go on. */
  abort(stepId: number, message: string, now: number): EndedSequence[] {
    const { composition } = this.#takeInFlight(stepId);
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
    return this.#open.size;
  }

  /** The fewest tokens that an open sequence may still generate; null where none is open. */
  leastTokensLeft(): number | null {
    let least: number | null = null;
    for (const sequence of this.#open.values()) {
      least = Math.min(least ?? Number.POSITIVE_INFINITY, this.#tokensLeft(sequence));
    }
    return least;
  }

  openSequenceIds(): string[] {
    return [...this.#open.keys()];
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
    return auditState(this.#state, this.#open.size);
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

  /** How a token ends its sequence instead of being given out; null where it does not. */
  #tokenEnd(sequence: OpenSequence, tokenId: number, now: number): EndedSequence | null {
    if (tokenId < 0)
      return this.#end(sequence, 'error', 'The device returned no token where one was due.', now);
    return sequence.spec.stopTokenIds.includes(tokenId) ? this.#end(sequence, 'stop', '', now) : null;
  }

  #end(sequence: OpenSequence, reason: EndReason, message: string, now: number): EndedSequence {
    this.#open.delete(sequence.spec.sequenceId);
    this.#state.tenants.ended(sequence);
    this.#state.tables.releaseAll(sequence);
    const index = this.#state.running.indexOf(sequence);
    if (index >= 0) this.#state.running.splice(index, 1);
    else this.#state.waiting.remove(sequence);
    return endedSequence(sequence, reason, message, now);
  }

  #submissionFault(sequence: OpenSequence): string {
    const tokenCount = sequence.tokenIds.length;
    if (sequence.promptTokenCount === 0) return 'The prompt has no tokens.';
    if (sequence.spec.maxTokens < 1) return `maxTokens must be 1 or more, not ${sequence.spec.maxTokens}.`;
    if (sequence.promptTokenCount + 1 > this.#maxModelLenTokens) {
      return `The prompt has ${sequence.promptTokenCount} tokens; with one token to generate at most ${this.#maxModelLenTokens} fit.`;
    }
    if (this.#open.size >= MAX_OPEN_SEQUENCES) return `${MAX_OPEN_SEQUENCES} sequences are open already.`;
    return this.#state.tables.blocksFor(tokenCount) > this.#state.tables.blockCount
      ? this.#poolFault(sequence)
      : '';
  }

  #isFullLength(sequence: OpenSequence): boolean {
    return this.#tokensLeft(sequence) <= 0;
  }

  #tokensLeft(sequence: OpenSequence): number {
    return Math.min(
      sequence.spec.maxTokens - generatedTokenCount(sequence),
      this.#maxModelLenTokens - sequence.tokenIds.length,
    );
  }

  /** True when the whole pool could not hold the tokens that its next step attends to. */
  #isBeyondPool(sequence: OpenSequence): boolean {
    return this.#state.tables.blocksFor(sequence.tokenIds.length) > this.#state.tables.blockCount;
  }

  #poolFault(sequence: OpenSequence): string {
    const { blockCount, blockSize } = this.#state.tables;
    return `The sequence has ${sequence.tokenIds.length} tokens, and the KV cache holds ${blockCount * blockSize} in all.`;
  }
}

const chargedAs = {
  prefill: 'prefillDeviceMs',
  decode: 'decodeDeviceMs',
  recompute: 'recomputeDeviceMs',
} as const;

/** Adds each entry's share of the measured time to its sequence's account, and returns the sums by kind. */
function bookCharge(
  { batch, composition, fit }: StepInFlight,
  deviceMs: number,
  accepted: readonly number[],
  charged: (sequence: OpenSequence, deviceMs: number) => void,
): StepCharge {
  const charge = {
    prefillDeviceMs: 0,
    decodeDeviceMs: 0,
    speculationWasteDeviceMs: 0,
    recomputeDeviceMs: 0,
  };
  const shares = chargeStep(batch.entries, deviceMs, fit);
  const tokenMs = chargedPerTokenMs(batch.features, deviceMs, fit);
  for (const [index, entry] of batch.entries.entries()) {
    const sequence = sequenceAt(composition, index);
    const { account, endWith } = sequence;
    const shareMs = shares[index] ?? 0;
    const isWaste = entry.kind === 'decode' && endWith !== null;
    // A guess that was wrong costs what one token more did; the rest of the step was needed anyway.
    const wrongCount = (entry.draftCount ?? 0) - (accepted[index] ?? 0);
    const wasteMs = isWaste ? shareMs : Math.min(shareMs, wrongCount * tokenMs);
    const kind = chargedAs[entry.kind];
    charge.speculationWasteDeviceMs += wasteMs;
    account.speculationWasteDeviceMs += wasteMs;
    charge[kind] += shareMs - wasteMs;
    account[kind] += shareMs - wasteMs;
    charged(sequence, shareMs);
    if (fit !== null && account.fitId !== fit.fitId) {
      account.fitId = fit.fitId;
      account.fitCount += 1;
    }
  }
  return charge;
}

/** Keeps the prompt's, and returns those of the sampled token where they are wanted. */
function takeLogprobs(
  sequence: OpenSequence,
  entry: BatchEntry,
  logprobs: readonly TokenLogprobs[] | undefined,
): TokenLogprobs | undefined {
  if (logprobs === undefined || sequence.spec.sampling.logprobCount === undefined) return undefined;
  const scored = entry.isSampled ? logprobs.slice(0, -1) : logprobs;
  sequence.scoredTokenCount += scored.length;
  sequence.promptLogprobs.push(...scored);
  return entry.isSampled ? logprobs.at(-1) : undefined;
}

function sequenceAt(composition: Composition, index: number): OpenSequence {
  const sequence = composition.sequences[index];
  if (sequence === undefined) throw new SchedulerError(`The step has no entry ${index}.`);
  return sequence;
}

function checkedLimits(limits: SchedulerLimits): SchedulerLimits {
  assertCount('tokenBudget', limits.tokenBudget);
  assertCount('maxRunningCount', limits.maxRunningCount);
  const { tokenBudget, maxRunningCount, draftTokenCount = 0 } = limits;
  if (!Number.isInteger(draftTokenCount) || draftTokenCount < 0) {
    throw new SchedulerError(`draftTokenCount must be a whole number of 0 or more, not ${draftTokenCount}.`);
  }
  return { tokenBudget, maxRunningCount, draftTokenCount };
}

function assertCount(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) {
    throw new SchedulerError(`${name} must be a whole number of 1 or more, not ${value}.`);
  }
}
