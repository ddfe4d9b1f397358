/** The plain data of one step: what the device is told to run, and what it answers. Made by scheduler.ts. */
import type {
  Account,
  EndedSequence,
  Sampling,
  SequenceStart,
  TokenEvent,
  TokenLogprobs,
} from './sequence.ts';
import type { StepFeatures } from './step-time.ts';
import type { TokenCounts } from './token-counts.ts';

export interface BatchEntry {
  readonly sequenceId: string;
  /** The tokens this step computes for the sequence, at positions contextLength onward. */
  readonly tokenIds: readonly number[];
  /** Tokens of it already in the KV cache. */
  readonly contextLength: number;
  /** KV block ids covering contextLength + tokenIds.length tokens, in order; the sequence's own, so until the step has settled. */
  readonly blockTable: readonly number[];
  /** So many of `tokenIds`, the last ones, are guesses that this step verifies; absent where none are. */
  readonly draftCount?: number;
  /** False for a prefill chunk that does not reach the sequence's last known token. */
  readonly isSampled: boolean;
  readonly sampling: Sampling;
  /** `recompute`: tokens that were in the cache before a preemption. */
  readonly kind: 'prefill' | 'decode' | 'recompute';
  /** What the penalties count, where one is on; the scheduler goes on counting in it once the step has run. */
  readonly tokenCounts?: TokenCounts;
  /** Not to be sampled in this step. */
  readonly bannedTokenIds?: readonly number[];
  /** For each computed token the one that follows it where its log-probability is wanted, otherwise -1. */
  readonly scoredTokenIds?: readonly number[];
}

export interface Batch {
  readonly stepId: number;
  readonly entries: readonly BatchEntry[];
  readonly features: StepFeatures;
}

export interface StepResult {
  readonly stepId: number;
  /** One per entry, what follows its last known token; -1 where nothing was sampled. */
  readonly sampledTokenIds: ArrayLike<number>;
  /** One per entry: what follows each of its drafts, as if those before it had been drawn. Absent where none has drafts. */
  readonly afterDraftTokenIds?: readonly (ArrayLike<number> | null)[];
  /** One list per entry: its scored tokens in order, then its sampled one where wanted. Absent where no entry wants any. */
  readonly logprobs?: readonly (readonly TokenLogprobs[])[];
  readonly deviceMs: number;
}

/** What a settled step means: who got a token, who ended, who pays, and the step row's own figures. */
export interface StepSettlement {
  readonly stepId: number;
  readonly events: readonly TokenEvent[];
  /** What each event's sequence has been charged so far, this step included; one per event. */
  readonly accounts: readonly Account[];
  /** Of the sequences whose first token since their submission is among the events. */
  readonly starts: readonly SequenceStart[];
  readonly ended: readonly EndedSequence[];
  /** The step's deviceMs by kind; they sum to it. */
  readonly charge: StepCharge;
  /** 0 where no fit existed. */
  readonly predictedMs: number;
  readonly fitId: string;
  /** Blocks whose hashes left the prefix cache while composing; they left before the others entered. */
  readonly leftBlockHashes: readonly string[];
  readonly enteredBlockHashes: readonly string[];
  /** Tokens that came from the prefix cache for sequences first scheduled in this step. */
  readonly cachedTokenCount: number;
  /** Sequences pushed back to waiting while this step was composed, or since the one before by a pool that shrank. */
  readonly preemptionCount: number;
  /** As they stood while the step ran. */
  readonly runningCount: number;
  readonly waitingCount: number;
  readonly kvUsedBlockCount: number;
  readonly emittedTokenCount: number;
  /** Guesses that the step verified, and those of them that were right. */
  readonly draftedTokenCount: number;
  readonly acceptedDraftCount: number;
  readonly firstTokenCount: number;
  /** Gaps to the sequence's token before, over emitted tokens of sequences with an ITL objective; 0 when none. */
  readonly itlMeanMs: number;
  readonly itlMaxMs: number;
  readonly itlTokenCount: number;
}

export interface StepCharge {
  readonly prefillDeviceMs: number;
  readonly decodeDeviceMs: number;
  readonly speculationWasteDeviceMs: number;
  readonly recomputeDeviceMs: number;
}
