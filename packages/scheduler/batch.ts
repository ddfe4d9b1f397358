/** The plain data of one step: what the device is told to run, and what it answers. Made by scheduler.ts. */
import type { Sampling } from './sequence.ts';
import type { StepFeatures } from './step-time.ts';

export interface BatchEntry {
  readonly sequenceId: string;
  /** The tokens this step computes for the sequence, at positions contextLength onward. */
  readonly tokenIds: readonly number[];
  /** Tokens of it already in the KV cache. */
  readonly contextLength: number;
  /** KV block ids covering contextLength + tokenIds.length tokens, in order. */
  readonly blockTable: readonly number[];
  /** False for a prefill chunk that does not reach the sequence's last known token. */
  readonly isSampled: boolean;
  readonly sampling: Sampling;
  /** `recompute`: tokens that were in the cache before a preemption. */
  readonly kind: 'prefill' | 'decode' | 'recompute';
}

export interface Batch {
  readonly stepId: number;
  readonly entries: readonly BatchEntry[];
  readonly features: StepFeatures;
}

export interface StepResult {
  readonly stepId: number;
  /** One per entry, -1 where nothing was sampled. */
  readonly sampledTokenIds: ArrayLike<number>;
  readonly deviceMs: number;
}
