/**
 * Composes one step: decode first, then prefills under way, then admissions, all under one token budget. Called by
 * scheduler.ts alone, on the scheduler's own state. Preempts when blocks run out; ends nothing, since the scheduler ends a
 * sequence that outgrows the whole pool before it comes here.
 */
import type { BatchEntry } from './batch.ts';
import type { BlockTables } from './block-tables.ts';
import {
  comparePreemption,
  generatedTokenCount,
  isStillScored,
  nextKind,
  type OpenSequence,
  remainingTokenCount,
} from './open-sequence.ts';
import type { WaitingQueue } from './waiting-queue.ts';

export interface SchedulerLimits {
  /** Most tokens one step may compute. */
  readonly tokenBudget: number;
  /** Most sequences that may run at once. */
  readonly maxRunningCount: number;
}

export interface SchedulerState {
  limits: SchedulerLimits;
  numericsId: string;
  /** In order of admission. */
  readonly running: OpenSequence[];
  readonly waiting: WaitingQueue;
  readonly tables: BlockTables;
  admissionCount: number;
}

export interface Composition {
  readonly entries: BatchEntry[];
  /** The sequence of each entry. */
  readonly sequences: OpenSequence[];
  preemptionCount: number;
  cachedTokenCount: number;
}

export function compose(state: SchedulerState, stepId: number, now: number): Composition {
  const composition: Composition = { entries: [], sequences: [], preemptionCount: 0, cachedTokenCount: 0 };
  let budget = state.limits.tokenBudget;
  const add = (sequence: OpenSequence, tokenCount: number): void => {
    composition.entries.push(entryOf(sequence, tokenCount));
    composition.sequences.push(sequence);
    markScheduled(sequence, state.numericsId, stepId, now);
    budget -= tokenCount;
  };

  // After limits were lowered more sequences may decode than the budget holds: then they take turns.
  const decoding = state.running
    .filter((sequence) => nextKind(sequence) === 'decode')
    .sort((a, b) => a.lastStepId - b.lastStepId || comparePreemption(a, b));
  for (const sequence of decoding) {
    if (budget === 0) break;
    if (state.running.includes(sequence) && makeRoom(state, composition, sequence)) add(sequence, 1);
  }

  const prefilling = state.running
    .filter((sequence) => nextKind(sequence) !== 'decode')
    .sort((a, b) => a.queueRank - b.queueRank || a.admissionOrder - b.admissionOrder);
  for (const sequence of prefilling) {
    if (budget === 0) break;
    if (!state.running.includes(sequence)) continue;
    // A prefill waits for decodes to give blocks back; only where nothing else moves does it push others out.
    const canStart = state.tables.reachableTokenCount(sequence) > sequence.computedTokenCount;
    if (!canStart && composition.entries.length > 0) continue;
    if (!canStart && !makeRoom(state, composition, sequence)) continue;
    add(sequence, growForChunk(state.tables, sequence, budget));
  }

  // Blocks are short: whoever came in now would be pushed out soon, or would push out others.
  if (composition.preemptionCount > 0) return composition;
  while (budget > 0 && state.running.length < state.limits.maxRunningCount) {
    const sequence = state.waiting.first();
    if (sequence === null || !admit(state, sequence, composition)) break;
    add(sequence, growForChunk(state.tables, sequence, budget));
  }
  return composition;
}

/** Makes sure that one more token fits, if need be by preempting; false where the sequence itself had to go. */
function makeRoom(state: SchedulerState, composition: Composition, sequence: OpenSequence): boolean {
  while (!state.tables.grow(sequence, sequence.computedTokenCount + 1)) {
    const victim = state.running
      .filter((candidate) => !composition.sequences.includes(candidate))
      .sort(comparePreemption)
      .at(-1);
    if (victim === undefined || state.running.length === 1) {
      throw new Error('A sequence that runs alone found no KV block.');
    }
    preempt(state, victim);
    composition.preemptionCount += 1;
    if (victim === sequence) return false;
  }
  return true;
}

function preempt(state: SchedulerState, victim: OpenSequence): void {
  victim.recomputeUntil = Math.max(victim.recomputeUntil, victim.computedTokenCount);
  victim.preemptionCount += 1;
  state.tables.releaseAll(victim);
  state.running.splice(state.running.indexOf(victim), 1);
  state.waiting.add(victim);
}

/**
 * Lets the first of the waiting run if all its known tokens fit beside what the running ones still need for theirs, with
 * a spare block for each of these to decode into. Nobody overtakes a sequence that does not fit yet.
 */
function admit(state: SchedulerState, sequence: OpenSequence, composition: Composition): boolean {
  const { tables, running, waiting } = state;
  const foundTokenCount = tables.attachPrefix(sequence, state.numericsId);
  let neededBlockCount = tables.blocksFor(sequence.tokenIds.length) - sequence.blockTable.length;
  for (const other of running) {
    neededBlockCount += tables.blocksFor(other.tokenIds.length) - other.blockTable.length + 1;
  }
  if (neededBlockCount > tables.availableCount) {
    tables.releaseAll(sequence);
    return false;
  }
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
  return {
    sequenceId: sequence.spec.sequenceId,
    tokenIds: sequence.tokenIds.slice(start, start + tokenCount),
    contextLength: start,
    blockTable: [...sequence.blockTable],
    isSampled: start + tokenCount === sequence.tokenIds.length,
    sampling: sequence.spec.sampling,
    kind: nextKind(sequence),
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
