/**
 * Speculation: guesses at the next tokens of decoding sequences go along in their step, and those that the model would have
 * drawn anyway are kept (Leviathan et al. 2023). Lossless, since a token depends on (seed, position, logits) alone and logits
 * not on the chunk. Called by compose.ts last, with the budget that decodes and prefills left, and at settle.
 */
import type { BatchEntry } from './batch.ts';
import type { Composition, SchedulerState } from './compose.ts';
import { draftLength } from './draft-length.ts';
import { generatedTokenCount, type OpenSequence } from './open-sequence.ts';
import type { SequenceSpec } from './sequence.ts';
import { featuresOf } from './step-time.ts';

/** Where a sequence's guesses come from: a look-up of its words, or in the twin, which knows none, a draw. */
export interface DraftSource {
  /** At most `most` guesses at what follows these; none where there is none. */
  draft(tokenIds: readonly number[], most: number): number[];
}

export type DraftSourceOf = (spec: SequenceSpec) => DraftSource;

/** What is believed before anything was verified. */
export const STARTING_ACCEPTANCE = 0.5;
/** How much one verified draft tells, of its sequence and of those to come. */
const LEARNING_RATE = 0.1;
/** What was given up comes back so far with every step without drafts, so that it is tried again. */
const RECOVERY_RATE = 0.005;

interface Candidate {
  readonly index: number;
  readonly sequence: OpenSequence;
  readonly tokenIds: readonly number[];
}

/** Lengthens decode entries by what was found; nobody is preempted for it. */
export function addDrafts(state: SchedulerState, composition: Composition, budget: number): void {
  const most = state.limits.draftTokenCount ?? 0;
  if (most === 0 || budget === 0) return;
  const candidates: Candidate[] = [];
  composition.entries.forEach((entry, index) => {
    const sequence = composition.sequences[index];
    if (sequence === undefined || entry.kind !== 'decode' || !isPlain(entry)) return;
    const left = sequence.spec.maxTokens - generatedTokenCount(sequence) - 1;
    sequence.draftSource ??= state.draftSourceOf(sequence.spec);
    const tokenIds = sequence.draftSource.draft(sequence.tokenIds, Math.min(most, left));
    if (tokenIds.length > 0) candidates.push({ index, sequence, tokenIds });
  });
  if (candidates.length === 0) return;
  const length = draftLength(
    candidates.map(({ sequence, tokenIds }) => ({
      tokenCount: tokenIds.length,
      acceptance: acceptanceOf(sequence, state),
    })),
    featuresOf(composition.entries),
    state.fit,
    budget,
  );
  for (const { index, sequence, tokenIds } of candidates) {
    const entry = composition.entries[index];
    if (entry === undefined) continue;
    const drafts = tokenIds.slice(0, length);
    const end = entry.contextLength + 1 + drafts.length;
    if (drafts.length === 0 || end > state.maxModelLenTokens || !state.tables.grow(sequence, end)) {
      sequence.draftAcceptance += RECOVERY_RATE * (STARTING_ACCEPTANCE - sequence.draftAcceptance);
      continue;
    }
    composition.entries[index] = {
      ...entry,
      tokenIds: [...entry.tokenIds, ...drafts],
      blockTable: [...sequence.blockTable],
      draftCount: drafts.length,
    };
  }
}

/** How many of an entry's drafts are what the device drew in their places. */
export function acceptedCount(
  { tokenIds, draftCount = 0 }: BatchEntry,
  sampledTokenId: number,
  afterDrafts: ArrayLike<number> | null | undefined,
): number {
  const drafts = draftCount === 0 ? [] : tokenIds.slice(-draftCount);
  let expected = sampledTokenId;
  let count = 0;
  for (const [index, draft] of drafts.entries()) {
    if (draft !== expected) break;
    count += 1;
    expected = afterDrafts?.[index] ?? -1;
  }
  return count;
}

/** What a verified entry says of the next. */
export function noteAcceptance(
  state: SchedulerState,
  sequence: OpenSequence,
  draftCount: number,
  accepted: number,
): void {
  sequence.speculatedTokenCount += draftCount;
  sequence.acceptedTokenCount += accepted;
  for (let trial = 0; trial < Math.min(draftCount, accepted + 1); trial += 1) {
    const outcome = trial < accepted ? 1 : 0;
    const before = acceptanceOf(sequence, state);
    sequence.draftAcceptance = before + LEARNING_RATE * (outcome - before);
    state.draftAcceptance += 0.1 * LEARNING_RATE * (outcome - state.draftAcceptance);
  }
}

/** A sequence that has not verified any is like those before it. */
function acceptanceOf(sequence: OpenSequence, state: SchedulerState): number {
  if (Number.isNaN(sequence.draftAcceptance)) sequence.draftAcceptance = state.draftAcceptance;
  return sequence.draftAcceptance;
}

/** Penalties, bans and scores depend on tokens that are only guessed. */
function isPlain({ sampling, tokenCounts, bannedTokenIds, scoredTokenIds, isSampled }: BatchEntry): boolean {
  return (
    isSampled &&
    tokenCounts === undefined &&
    bannedTokenIds === undefined &&
    scoredTokenIds === undefined &&
    sampling.logprobCount === undefined &&
    (sampling.logitBias ?? []).length === 0
  );
}
