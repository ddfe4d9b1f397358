/**
 * Books the outcome of a step: tokens to their sequences, its time to their accounts, full blocks to the prefix cache, and who
 * has come to an end. Called by Scheduler.settle, once for each step that ran.
 */
import type { Batch, BatchEntry, StepResult, StepSettlement } from './batch.ts';
import { bookCharge } from './book-charge.ts';
import { type Composition, type SchedulerState, sequenceAt } from './compose.ts';
import { acceptedCount, noteAcceptance } from './drafts.ts';
import { stepAllowance, type WatchAllowance } from './guess-watch.ts';
import { addToken, generatedTokenCount, type OpenSequence, sequenceStart } from './open-sequence.ts';
import { notePace } from './prefill-room.ts';
import type { Account, EndedSequence, SequenceStart, TokenEvent, TokenLogprobs } from './sequence.ts';
import { endSequence, isBeyondPool, isFullLength, poolFault } from './sequence-end.ts';
import { predictMs, type StepTimeFit } from './step-time.ts';

export interface SchedulerCounts {
  readonly runningCount: number;
  readonly waitingCount: number;
  readonly kvUsedBlockCount: number;
}

export interface StepInFlight {
  readonly batch: Batch;
  readonly composition: Composition;
  readonly counts: SchedulerCounts;
  /** Since the step before, by a shrinking pool. */
  readonly preemptedBeforeCount: number;
  /** The fit of the kernels it runs on; a switch during the step brings another. */
  readonly fit: StepTimeFit | null;
}

/** What the entries add up to. */
interface Outcome {
  readonly events: TokenEvent[];
  readonly accounts: Account[];
  readonly starts: SequenceStart[];
  readonly ended: EndedSequence[];
  /** Between the tokens of sequences with an ITL objective. */
  readonly gapsMs: number[];
  readonly watching: WatchAllowance;
  firstTokenCount: number;
  draftedTokenCount: number;
  acceptedDraftCount: number;
}

export function settleStep(
  state: SchedulerState,
  inFlight: StepInFlight,
  result: StepResult,
  now: number,
): StepSettlement {
  const { batch, composition, counts, preemptedBeforeCount, fit } = inFlight;
  notePace(state.flexPace, composition, result.deviceMs);
  const accepted = batch.entries.map((entry, index) =>
    acceptedCount(entry, result.sampledTokenIds[index] ?? -1, result.afterDraftTokenIds?.[index]),
  );
  const charge = bookCharge(inFlight, result.deviceMs, accepted, (sequence, deviceMs) => {
    state.tenants.charged(sequence, deviceMs);
    state.programs.charged(sequence, deviceMs, now);
  });
  const outcome: Outcome = {
    ...{ events: [], accounts: [], starts: [], ended: [], gapsMs: [] },
    watching: stepAllowance(result.deviceMs),
    ...{ firstTokenCount: 0, draftedTokenCount: 0, acceptedDraftCount: 0 },
  };
  for (const [index, entry] of batch.entries.entries()) {
    settleEntry(state, outcome, now, {
      sequence: sequenceAt(composition, index),
      entry,
      acceptedDraftCount: accepted[index] ?? 0,
      sampledTokenId: result.sampledTokenIds[index] ?? -1,
      afterDraftTokenIds: result.afterDraftTokenIds?.[index] ?? null,
      logprobs: result.logprobs?.[index],
    });
  }
  const { events, accounts, starts, ended, gapsMs } = outcome;
  const { entered, left } = state.tables.takeCacheChanges();
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
    preemptionCount: preemptedBeforeCount + composition.preemptionCount,
    ...counts,
    emittedTokenCount: events.length,
    firstTokenCount: outcome.firstTokenCount,
    draftedTokenCount: outcome.draftedTokenCount,
    acceptedDraftCount: outcome.acceptedDraftCount,
    itlMeanMs: gapsMs.length === 0 ? 0 : gapsMs.reduce((sum, gap) => sum + gap, 0) / gapsMs.length,
    itlMaxMs: gapsMs.reduce((most, gap) => Math.max(most, gap), 0),
    itlTokenCount: gapsMs.length,
  };
}

interface SettledEntry {
  readonly sequence: OpenSequence;
  readonly entry: BatchEntry;
  readonly acceptedDraftCount: number;
  /** As StepResult has them. */
  readonly sampledTokenId: number;
  readonly afterDraftTokenIds: ArrayLike<number> | null;
  readonly logprobs: readonly TokenLogprobs[] | undefined;
}

function settleEntry(state: SchedulerState, outcome: Outcome, now: number, settled: SettledEntry): void {
  const { sequence, entry, acceptedDraftCount, afterDraftTokenIds } = settled;
  const { draftCount = 0 } = entry;
  sequence.computedTokenCount += entry.tokenIds.length - draftCount;
  state.tables.offerFullBlocks(sequence);
  const logprobs = takeLogprobs(sequence, entry, settled.logprobs);
  if (sequence.endWith !== null) {
    outcome.ended.push(endSequence(state, sequence, sequence.endWith, '', now));
    return;
  }
  if (!entry.isSampled) return;
  outcome.draftedTokenCount += draftCount;
  outcome.acceptedDraftCount += acceptedDraftCount;
  noteAcceptance(state, sequence, draftCount, acceptedDraftCount);
  for (let order = 0; order <= acceptedDraftCount; order += 1) {
    const tokenId = order === 0 ? settled.sampledTokenId : (afterDraftTokenIds?.[order - 1] ?? -1);
    const end = takeToken(state, outcome, sequence, tokenId, logprobs, now);
    if (end !== null) {
      outcome.ended.push(end);
      break;
    }
    if (order === acceptedDraftCount) break;
    // The guess was this token: its keys and values are there.
    sequence.computedTokenCount += 1;
    state.tables.offerFullBlocks(sequence);
  }
  if (draftCount > 0) state.tables.shrink(sequence, sequence.tokenIds.length);
}

/** Gives a token out and adds it to its sequence. Returns the sequence where it ends by it, before or after. */
function takeToken(
  state: SchedulerState,
  outcome: Outcome,
  sequence: OpenSequence,
  tokenId: number,
  logprobs: TokenLogprobs | undefined,
  now: number,
): EndedSequence | null {
  if (tokenId < 0) {
    return endSequence(state, sequence, 'error', 'The device returned no token where one was due.', now);
  }
  if (sequence.spec.stopTokenIds.includes(tokenId)) return endSequence(state, sequence, 'stop', '', now);
  const event: TokenEvent = {
    sequenceId: sequence.spec.sequenceId,
    tokenId,
    index: generatedTokenCount(sequence),
    ...(logprobs === undefined ? {} : { logprobs }),
    ...(sequence.promptLogprobs.length === 0 ? {} : { promptLogprobs: sequence.promptLogprobs }),
  };
  sequence.promptLogprobs = [];
  outcome.events.push(event);
  outcome.accounts.push({ ...sequence.account });
  if (event.index === 0) {
    outcome.firstTokenCount += 1;
    state.tenants.hasWaited(sequence, now);
  }
  if (sequence.lastTokenAt === null) outcome.starts.push(sequenceStart(sequence));
  if (sequence.lastTokenAt !== null && sequence.spec.objectives.itlMs > 0) {
    outcome.gapsMs.push(now - sequence.lastTokenAt);
  }
  sequence.lastTokenAt = now;
  addToken(sequence, tokenId);
  sequence.watch?.note(sequence.tokenIds, outcome.watching);
  if (isFullLength(state, sequence)) return endSequence(state, sequence, 'length', '', now);
  if (!isBeyondPool(state, sequence)) return null;
  return endSequence(state, sequence, 'error', poolFault(state, sequence), now);
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
