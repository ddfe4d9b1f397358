/**
 * A sequence between submission and end, as the scheduler keeps it. Mutable, and touched only by scheduler.ts,
 * compose.ts and block-tables.ts; what leaves the scheduler is a copy.
 *
 *   waiting --admitted--> running --end--> (gone)
 *      ^---- preempted ------'
 */
import type { DraftSource } from './drafts.ts';
import { GuessWatch, noGuesses } from './guess-watch.ts';
import type {
  Account,
  EndedSequence,
  EndReason,
  SequenceSpec,
  SequenceStart,
  ServiceTier,
  TokenLogprobs,
} from './sequence.ts';
import { TokenCounts } from './token-counts.ts';

export interface OpenSequence {
  readonly spec: SequenceSpec;
  readonly submittedAt: number;
  /** Counts up with every submission. */
  readonly submissionOrder: number;
  /** Where it stands among the waiting: smaller goes first (see `queueRank`). */
  readonly queueRank: number;
  /** Prompt, then generated tokens. */
  readonly tokenIds: number[];
  readonly promptTokenCount: number;
  /** Names its tier and tenant. */
  readonly tenantKey: string;
  /** null where no penalty is on. */
  readonly tokenCounts: TokenCounts | null;
  /** Prompt tokens, from the second on, whose log-probabilities are wanted; 0 where none are. */
  readonly tokenCountToScore: number;
  /** How many of them are known. */
  scoredTokenCount: number;
  /** Theirs, until the first token takes them along. */
  promptLogprobs: TokenLogprobs[];

  /** Blocks that hold its first `computedTokenCount` tokens. */
  readonly blockTable: number[];
  computedTokenCount: number;
  /** Hash chain of its first full blocks under `kvNumericsId`; may run ahead of what is computed. */
  blockHashes: string[];
  kvNumericsId: string;
  /** True when its KV comes from more than one numericsId; such blocks never enter the prefix cache. */
  isKvMixed: boolean;
  /** Full blocks of the table already offered to the prefix cache. */
  offeredBlockCount: number;
  /** Tokens that were in a cache before the last preemption or a worker's loss; computing them again is `recompute`. */
  recomputeUntil: number;

  /** Counts up with every admission; 0 while it has never run. */
  admissionOrder: number;
  lastStepId: number;
  firstScheduledAt: number | null;
  lastTokenAt: number | null;
  firstNumericsId: string | null;
  isMixedNumerics: boolean;
  cachedTokenCount: number;
  preemptionCount: number;
  /** Null before anything was drafted. */
  draftSource: DraftSource | null;
  /** That one more of its drafts is right, 0 to 1; NaN before any was verified. */
  draftAcceptance: number;
  speculatedTokenCount: number;
  acceptedTokenCount: number;
  /** Null where nobody watches what guesses would be worth. */
  readonly watch: GuessWatch | null;
  /** Set by a cancellation that has to wait for the step in flight. */
  endWith: 'cancelled' | 'stop' | null;
  readonly account: { -readonly [Key in keyof Account]: Account[Key] };
}

/** How much later a tier's sequence counts as submitted. Linear ageing: whoever waits long enough goes first. */
const tierHandicapMs: Readonly<Record<ServiceTier, number>> = { priority: 0, default: 10_000, flex: 60_000 };

export const tierOrder: Readonly<Record<ServiceTier, number>> = { priority: 0, default: 1, flex: 2 };

/**
 * @param handicapMs how much later it counts as submitted, on top of its tier's
 * @param watchedShare of all sequences, of which it is counted what guesses would be worth
 */
export function openSequence(
  spec: SequenceSpec,
  submissionOrder: number,
  now: number,
  handicapMs: number,
  watchedShare = 0,
): OpenSequence {
  const tokenCounts = TokenCounts.for(spec.sampling, spec.promptTokenIds);
  if (tokenCounts !== null) for (const tokenId of spec.generatedTokenIds) tokenCounts.add(tokenId);
  // A resumed sequence has delivered its prompt's with the first token it comes with.
  const isScored = spec.sampling.isPromptScored === true && spec.generatedTokenIds.length === 0;
  return {
    spec,
    submittedAt: now,
    submissionOrder,
    queueRank: now + tierHandicapMs[spec.serviceTier] + handicapMs,
    tokenIds: spec.promptTokenIds.concat(spec.generatedTokenIds),
    promptTokenCount: spec.promptTokenIds.length,
    tenantKey: tenantKey(spec.serviceTier, spec.tenant),
    tokenCounts,
    tokenCountToScore: isScored ? spec.promptTokenIds.length - 1 : 0,
    scoredTokenCount: 0,
    promptLogprobs: [],
    blockTable: [],
    computedTokenCount: 0,
    blockHashes: [],
    kvNumericsId: '',
    isKvMixed: false,
    offeredBlockCount: 0,
    // What a lost worker had computed of it is computed again.
    recomputeUntil:
      spec.generatedTokenIds.length === 0
        ? 0
        : spec.promptTokenIds.length + spec.generatedTokenIds.length - 1,
    admissionOrder: 0,
    lastStepId: 0,
    firstScheduledAt: null,
    lastTokenAt: null,
    firstNumericsId: null,
    isMixedNumerics: false,
    cachedTokenCount: 0,
    preemptionCount: 0,
    draftSource: null,
    draftAcceptance: Number.NaN,
    speculatedTokenCount: 0,
    acceptedTokenCount: 0,
    watch: GuessWatch.for(spec, watchedShare),
    endWith: null,
    account: {
      prefillDeviceMs: 0,
      decodeDeviceMs: 0,
      speculationWasteDeviceMs: 0,
      recomputeDeviceMs: 0,
      fitId: '',
      fitCount: 0,
    },
  };
}

export const tenantKey = (serviceTier: ServiceTier, tenant: string): string => `${serviceTier} ${tenant}`;

/** Known tokens whose KV is not computed yet; at least 1 for an open sequence. */
export function remainingTokenCount(sequence: OpenSequence): number {
  return sequence.tokenIds.length - sequence.computedTokenCount;
}

/** True until all of its prompt's wanted log-probabilities are known; blocks that others computed do not bring any. */
export function isStillScored(sequence: OpenSequence): boolean {
  return sequence.scoredTokenCount < sequence.tokenCountToScore;
}

/** Takes a token in that a step has sampled for it. */
export function addToken(sequence: OpenSequence, tokenId: number): void {
  sequence.tokenIds.push(tokenId);
  sequence.tokenCounts?.add(tokenId);
}

export function generatedTokenCount(sequence: OpenSequence): number {
  return sequence.tokenIds.length - sequence.promptTokenCount;
}

/** What the next tokens of the sequence are to a step. */
export function nextKind(sequence: OpenSequence): 'prefill' | 'decode' | 'recompute' {
  if (sequence.computedTokenCount < sequence.recomputeUntil) return 'recompute';
  const isDecode =
    remainingTokenCount(sequence) === 1 && sequence.computedTokenCount >= sequence.promptTokenCount;
  return isDecode ? 'decode' : 'prefill';
}

/** Negative when `a` keeps its blocks longer than `b`: higher tier first, then the earlier admitted. */
export function comparePreemption(a: OpenSequence, b: OpenSequence): number {
  const byTier = tierOrder[a.spec.serviceTier] - tierOrder[b.spec.serviceTier];
  return byTier !== 0 ? byTier : a.admissionOrder - b.admissionOrder;
}

export function sequenceStart(sequence: OpenSequence): SequenceStart {
  return {
    sequenceId: sequence.spec.sequenceId,
    cachedTokenCount: sequence.cachedTokenCount,
    queueMs: (sequence.firstScheduledAt ?? sequence.submittedAt) - sequence.submittedAt,
  };
}

/** True for the one that nobody pushes out, whatever its tier: so something always gets to its end. */
export function isEldestOf(running: readonly OpenSequence[], sequence: OpenSequence): boolean {
  return running.every(
    (other) =>
      other === sequence ||
      other.queueRank > sequence.queueRank ||
      (other.queueRank === sequence.queueRank && other.submissionOrder > sequence.submissionOrder),
  );
}

/** True when it has outlived its request, or has waited for its first step anywhere longer than it may. */
export function isExpired({ spec, submittedAt, firstScheduledAt }: OpenSequence, now: number): boolean {
  const { ageLimits } = spec;
  if (ageLimits === null) return false;
  const hasWaited = firstScheduledAt === null && spec.generatedTokenIds.length === 0;
  const { totalMs, queueMs } = ageLimits;
  const ageMs = now - submittedAt;
  return (totalMs !== null && ageMs >= totalMs) || (queueMs !== null && hasWaited && ageMs >= queueMs);
}

export function endedSequence(
  sequence: OpenSequence,
  reason: EndReason,
  message: string,
  now: number,
): EndedSequence {
  return {
    sequenceId: sequence.spec.sequenceId,
    reason,
    message,
    account: { ...sequence.account },
    promptTokenCount: sequence.promptTokenCount,
    cachedTokenCount: sequence.cachedTokenCount,
    completionTokenCount: generatedTokenCount(sequence),
    preemptionCount: sequence.preemptionCount,
    speculatedTokenCount: sequence.speculatedTokenCount,
    acceptedTokenCount: sequence.acceptedTokenCount,
    guesses: sequence.watch?.counts ?? noGuesses,
    queueMs: (sequence.firstScheduledAt ?? now) - sequence.submittedAt,
    isMixedNumerics: sequence.isMixedNumerics,
    ...(sequence.promptLogprobs.length === 0 ? {} : { promptLogprobs: sequence.promptLogprobs }),
  };
}
