/**
 * The fleet as the rest of the gateway sees it: submit a sequence, steer a worker, watch its steps. Implemented by
 * worker-fleet.ts over the link. One owner of the workers' state; everyone else receives copies.
 */
import type { StepRow } from '@variator/clickhouse/step-row';
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import type { EndedSequence, SequenceSpec, TokenLogprobs } from '@variator/scheduler/sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { CalibrationCase, CheckPrompt, DeviceTelemetry, PathBlock } from './link-frames.ts';

export type SequenceEvent =
  | {
      readonly kind: 'token';
      readonly tokenId: number;
      readonly index: number;
      readonly at: number;
      /** Where asked for. */
      readonly logprobs?: TokenLogprobs;
    }
  /** Always the last event, exactly once. */
  | {
      readonly kind: 'ended';
      readonly at: number;
      readonly ended: EndedSequence;
      readonly workerId: string;
      readonly pathId: string;
      /** False where a worker was lost before its last charge. */
      readonly isAccountFinal: boolean;
      /** True where its worker was lost and no other could end it; the reason is `error`. */
      readonly isLost: boolean;
      /** Times it went on with another worker after its own was lost. */
      readonly resumeCount: number;
    };

/** Leaving the iterator early cancels the sequence; `stop()` ends it with reason `stop` and the account still follows. */
export interface SequenceStream extends AsyncIterable<SequenceEvent> {
  stop(): void;
  cancel(): void;
}

export interface WorkerView {
  readonly workerId: string;
  readonly bootId: string;
  readonly pid: number;
  readonly envelope: Envelope;
  readonly path: ExecutionPath;
  readonly pathId: string;
  readonly joinedAt: number;
  readonly lastHeardAt: number;
  readonly runningCount: number;
  readonly waitingCount: number;
  readonly kvUsedBlockCount: number;
  /** null where its device has no driver that says anything. */
  readonly deviceTelemetry: DeviceTelemetry | null;
  readonly fits: readonly StepTimeFit[];
}

/** The world's: no worker, or it was lost. Policy: http answers 503. */
export class FleetError extends Error {
  override readonly name = 'FleetError';
}

export interface Fleet {
  /** True when a submitted sequence would be computed now. */
  canServe(): boolean;
  /** True also while a submitted sequence would wait for a lost worker's successor, which is not for long. */
  canTake(): boolean;
  /** Why it cannot serve, for people; '' when it can. */
  unreadyReason(): string;
  workers(): readonly WorkerView[];
  /** @throws FleetError when it cannot be taken (see `canTake`) */
  submit(spec: SequenceSpec, now: number): SequenceStream;

  prepare(workerId: string, path: ExecutionPath): Promise<{ faults: readonly string[]; prepareMs: number }>;
  switchTo(workerId: string, path: ExecutionPath, rolloutId: string): Promise<void>;
  alternate(
    workerId: string,
    plan: {
      rolloutId: string;
      incumbent: ExecutionPath;
      candidate: ExecutionPath;
      blocks: readonly PathBlock[];
    },
  ): Promise<{ completedBlockCount: number }>;
  check(
    workerId: string,
    path: ExecutionPath,
    prompts: readonly CheckPrompt[],
  ): Promise<readonly (readonly number[])[]>;
  calibrate(
    workerId: string,
    path: ExecutionPath,
    cases: readonly CalibrationCase[],
  ): Promise<{ stepCount: number; deviceMs: number }>;
  useFit(fit: StepTimeFit): void;
  /** The fit in use for these kernels, or null. */
  fitFor(deviceKind: string, modelHash: string, kernelsId: string): StepTimeFit | null;
  /**
   * Every step row from now on, until the signal aborts. Bounded: a reader more than 10,000 rows behind is ended with a
   * FleetError.
   */
  watchSteps(signal: AbortSignal): AsyncIterable<readonly StepRow[]>;
  /** Ends when the fleet is drained or the deadline passes. */
  drain(deadlineMs: number): Promise<void>;
}
