/**
 * Composes one step: decode first, then prefills under way and admissions by queue rank, all under one token budget.
 * Called by scheduler.ts alone, on the scheduler's own state. Preempts when blocks run out, and flex where a higher tier
 * needs its room; ends nothing, since the scheduler ends a sequence that outgrows the whole pool before it comes here.
 */
import type { BatchEntry } from './batch.ts';
import type { BlockTables } from './block-tables.ts';
import { addDrafts, type DraftSourceOf } from './drafts.ts';
import { type AdmissionState, displaceable, nextAdmission, noteAdmission } from './next-admission.ts';
import {
  comparePreemption,
  generatedTokenCount,
  isEldestOf,
  isStillScored,
  nextKind,
  type OpenSequence,
  remainingTokenCount,
} from './open-sequence.ts';
import { chunkTokenCount, type FlexPace, hasDecodeRoom, hasPrefillRoom } from './prefill-room.ts';
import type { ProgramService } from './program-service.ts';
import type { StepTimeFit } from './step-time.ts';

export interface SchedulerLimits {
  /** Most tokens one step may compute. */
  readonly tokenBudget: number;
  /** Most sequences that may run at once. */
  readonly maxRunningCount: number;
  /** Most guesses a decoding sequence has verified in a step; none where absent. */
  readonly draftTokenCount?: number;
}

export interface SchedulerState extends AdmissionState {
  /** Running and waiting, by id. */
  readonly open: Map<string, OpenSequence>;
  readonly programs: ProgramService;
  limits: SchedulerLimits;
  numericsId: string;
  fit: StepTimeFit | null;
  readonly flexPace: FlexPace;
  /** In order of admission. */
  readonly running: OpenSequence[];
  readonly tables: BlockTables;
  readonly maxModelLenTokens: number;
  readonly draftSourceOf: DraftSourceOf;
  admissionCount: number;
  /** That one more draft is right, over all sequences. */
  draftAcceptance: number;
}

export interface Composition {
  readonly entries: BatchEntry[];
  /** The sequence of each entry. */
  readonly sequences: OpenSequence[];
  preemptionCount: number;
  cachedTokenCount: number;
}

/** The sequence of a step's entry. */
export function sequenceAt({ sequences }: Composition, index: number): OpenSequence {
  const sequence = sequences[index];
  if (sequence === undefined) throw new Error(`The step has no entry ${index}.`);
  return sequence;
}

/** While others run, flex leaves this share of sequences and blocks free, so that who comes next need not push it out. */
const SHARE_LEFT_BY_FLEX = 1 / 8;

export function compose(state: SchedulerState, stepId: number, now: number): Composition {
  const composition: Composition = { entries: [], sequences: [], preemptionCount: 0, cachedTokenCount: 0 };
  const { running } = state;
  let budget = state.limits.tokenBudget;
  const add = (sequence: OpenSequence, tokenCount: number): void => {
    composition.entries.push(entryOf(sequence, tokenCount));
    composition.sequences.push(sequence);
    markScheduled(sequence, state.numericsId, stepId, now);
    budget -= tokenCount;
  };

  /** False where what is composed already leaves it nothing. */
  const addChunk = (sequence: OpenSequence): boolean => {
    const tokenCount = chunkTokenCount(sequence, composition, state, budget);
    if (tokenCount > 0) add(sequence, growForChunk(state.tables, sequence, tokenCount));
    return tokenCount > 0;
  };

  const displaced = displacedFlex(state);
  for (const victim of displaced) preempt(state, victim, composition);

  // After limits were lowered more sequences may decode than the budget holds: then they take turns.
  const decoding = running.filter((sequence) => nextKind(sequence) === 'decode');
  const isBefore = (a: OpenSequence, b: OpenSequence): number =>
    a.lastStepId - b.lastStepId || comparePreemption(a, b);
  // Mostly they stand in order already.
  if (
    decoding.some((sequence, index) => index > 0 && isBefore(decoding[index - 1] ?? sequence, sequence) > 0)
  ) {
    decoding.sort(isBefore);
  }
  // Where blocks are short the eldest takes its own first: it must not be the one that goes.
  if (state.tables.availableCount < decoding.length) {
    const index = decoding.findIndex((sequence) => isEldestOf(running, sequence));
    decoding.unshift(...decoding.splice(Math.max(0, index), 1));
  }
  for (const sequence of decoding) {
    if (budget === 0) break;
    const isThere = composition.preemptionCount === displaced.length || running.includes(sequence);
    if (isThere && makeRoom(state, composition, sequence)) add(sequence, 1);
  }

  const prefilling = running
    .filter((sequence) => nextKind(sequence) !== 'decode')
    .sort((a, b) => a.queueRank - b.queueRank || a.admissionOrder - b.admissionOrder);
  let isDoorOpen = true;
  while (budget > 0 && hasPrefillRoom(composition, state)) {
    // Blocks are short: whoever came in now would be pushed out soon, or would push out others.
    isDoorOpen &&= composition.preemptionCount === displaced.length;
    const [next] = prefilling;
    const candidate = isDoorOpen ? nextAdmission(state) : null;
    if (candidate !== null && (next === undefined || candidate.queueRank < next.queueRank)) {
      isDoorOpen = admit(state, candidate, composition, now);
      if (isDoorOpen && !addChunk(candidate)) break;
      continue;
    }
    if (next === undefined) break;
    prefilling.shift();
    if (!running.includes(next)) continue;
    // A prefill waits for decodes to give blocks back; only where nothing else moves does it push others out.
    const canStart = state.tables.reachableTokenCount(next) > next.computedTokenCount;
    if (!canStart && composition.entries.length > 0) continue;
    if (!canStart && !makeRoom(state, composition, next)) continue;
    if (!addChunk(next)) break;
  }
  addDrafts(state, composition, budget);
  return composition;
}

/** Makes sure that one more token fits, if need be by preempting; false where the sequence itself had to go. */
function makeRoom(state: SchedulerState, composition: Composition, sequence: OpenSequence): boolean {
  while (!state.tables.grow(sequence, sequence.computedTokenCount + 1)) {
    const candidates = state.running
      .filter((candidate) => !composition.sequences.includes(candidate))
      .sort(comparePreemption);
    const victim =
      candidates.findLast((candidate) => !isEldestOf(state.running, candidate)) ?? candidates.at(-1);
    if (victim === undefined || state.running.length === 1) {
      throw new Error('A sequence that runs alone found no KV block.');
    }
    preempt(state, victim, composition);
    if (victim === sequence) return false;
  }
  return true;
}

/** Who gives up its room to the next to be admitted: as many as that takes, and nobody where all would not be enough. */
function displacedFlex(state: SchedulerState): OpenSequence[] {
  const { running, tables, limits } = state;
  const candidate = nextAdmission(state);
  if (candidate === null) return [];
  const victims = displaceable(running, candidate);
  if (victims.length === 0) return [];
  tables.attachPrefix(candidate, state.numericsId);
  let missingBlockCount =
    tables.blocksFor(candidate.tokenIds.length) -
    candidate.blockTable.length +
    blocksOwed(state) -
    tables.availableCount;
  tables.releaseAll(candidate);
  for (let count = 0; count <= victims.length; count += 1) {
    if (missingBlockCount <= 0 && running.length - count < limits.maxRunningCount)
      return victims.slice(0, count);
    // Its blocks, those it needed yet, and its spare one; fewer where it shares some.
    missingBlockCount -= tables.blocksFor(victims[count]?.tokenIds.length ?? 0) + 1;
  }
  return [];
}

/** Pushes a running sequence back to waiting; its blocks are free, and its tokens will be computed again. */
export function preempt(
  state: SchedulerState,
  victim: OpenSequence,
  composition: Pick<Composition, 'preemptionCount'>,
): void {
  composition.preemptionCount += 1;
  victim.recomputeUntil = Math.max(victim.recomputeUntil, victim.computedTokenCount);
  victim.preemptionCount += 1;
  state.tables.releaseForReturn(victim);
  state.running.splice(state.running.indexOf(victim), 1);
  state.waiting.add(victim);
}

/**
 * Lets a waiting sequence run if all its known tokens fit beside what the running ones still need for theirs, with a
 * spare block for each of these to decode into. Nobody overtakes a sequence that does not fit yet.
 */
function admit(
  state: SchedulerState,
  sequence: OpenSequence,
  composition: Composition,
  now: number,
): boolean {
  const { tables, running, waiting, limits } = state;
  const isLeaving = leavesRoom(state, sequence, now);
  if (isLeaving && !hasDecodeRoom(running, sequence, state.fit)) return false;
  const leftShare = isLeaving ? SHARE_LEFT_BY_FLEX : 0;
  if (running.length >= limits.maxRunningCount - Math.floor(leftShare * limits.maxRunningCount)) return false;
  const foundTokenCount = tables.attachPrefix(sequence, state.numericsId);
  const neededBlockCount =
    tables.blocksFor(sequence.tokenIds.length) - sequence.blockTable.length + blocksOwed(state);
  if (neededBlockCount > tables.availableCount - Math.floor(leftShare * tables.blockCount)) {
    tables.releaseAll(sequence);
    return false;
  }
  noteAdmission(state, sequence);
  waiting.remove(sequence);
  running.push(sequence);
  state.admissionCount += 1;
  sequence.admissionOrder = state.admissionCount;
  if (sequence.firstScheduledAt === null) {
    sequence.cachedTokenCount = Math.min(foundTokenCount, sequence.promptTokenCount);
    composition.cachedTokenCount += foundTokenCount;
  }
  return true;
}

/** Flex takes the room that others leave, until its age has made up for its tier or it holds up one of a higher tier. */
function leavesRoom({ running, waiting }: SchedulerState, sequence: OpenSequence, now: number): boolean {
  if (sequence.spec.serviceTier !== 'flex' || sequence.queueRank <= now) return false;
  for (const lane of waiting.lanes()) if (lane.serviceTier !== 'flex') return false;
  return running.some((other) => other.spec.serviceTier !== 'flex');
}

/** What the running sequences still need for their known tokens, with a spare block for each to decode into. */
function blocksOwed({ tables, running }: SchedulerState): number {
  return running.reduce(
    (sum, { tokenIds, blockTable }) => sum + tables.blocksFor(tokenIds.length) - blockTable.length + 1,
    0,
  );
}

/** Grows the table for as many of the next tokens as budget and blocks allow, and returns how many. */
function growForChunk(tables: BlockTables, sequence: OpenSequence, budget: number): number {
  let most = Math.min(budget, remainingTokenCount(sequence));
  // A chunk is all recompute or all prefill; only a last token to decode goes along with the recomputed ones.
  const recomputed = sequence.recomputeUntil - sequence.computedTokenCount;
  if (recomputed > 0 && sequence.recomputeUntil < sequence.tokenIds.length - 1) {
    most = Math.min(most, recomputed);
  }
  const tokenCount = Math.min(most, tables.reachableTokenCount(sequence) - sequence.computedTokenCount);
  if (tokenCount < 1 || !tables.grow(sequence, sequence.computedTokenCount + tokenCount)) {
    throw new Error('A prefill chunk was composed without a KV block to go into.');
  }
  return tokenCount;
}

function entryOf(sequence: OpenSequence, tokenCount: number): BatchEntry {
  const start = sequence.computedTokenCount;
  const { minTokens = 0 } = sequence.spec.sampling;
  const isBanning = minTokens > 0 && generatedTokenCount(sequence) < minTokens;
  const plain: BatchEntry = {
    sequenceId: sequence.spec.sequenceId,
    tokenIds: sequence.tokenIds.slice(start, start + tokenCount),
    contextLength: start,
    blockTable: sequence.blockTable,
    isSampled: start + tokenCount === sequence.tokenIds.length,
    sampling: sequence.spec.sampling,
    kind: nextKind(sequence),
  };
  if (sequence.tokenCounts === null && !isBanning && !isStillScored(sequence)) return plain;
  return {
    ...plain,
    ...(sequence.tokenCounts === null ? {} : { tokenCounts: sequence.tokenCounts }),
    ...(isBanning ? { bannedTokenIds: sequence.spec.stopTokenIds } : {}),
    ...(isStillScored(sequence) ? { scoredTokenIds: scoredTokenIds(sequence, start, tokenCount) } : {}),
  };
}

/** What was scored before a preemption is not scored again. */
function scoredTokenIds(sequence: OpenSequence, start: number, tokenCount: number): number[] {
  const { scoredTokenCount, tokenCountToScore, tokenIds } = sequence;
  return Array.from({ length: tokenCount }, (_, offset) => {
    const position = start + offset;
    const isScored = position >= scoredTokenCount && position < tokenCountToScore;
    return isScored ? (tokenIds[position + 1] ?? -1) : -1;
  });
}

function markScheduled(sequence: OpenSequence, numericsId: string, stepId: number, now: number): void {
  sequence.lastStepId = stepId;
  sequence.firstScheduledAt ??= now;
  sequence.firstNumericsId ??= numericsId;
  if (sequence.firstNumericsId !== numericsId) sequence.isMixedNumerics = true;
  if (sequence.kvNumericsId !== numericsId) sequence.isKvMixed = true;
}
