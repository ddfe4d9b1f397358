/**
 * What the gateway keeps of a worker that has joined: its link, its open sequences, the calls it owes an answer to. Owned
 * and changed by worker-fleet.ts alone; others get a WorkerView.
 */
import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import type { Account, EndedSequence, SequenceSpec } from '@variator/scheduler/sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { EventQueue } from './event-queue.ts';
import type { SequenceEvent, WorkerView } from './fleet.ts';
import type { FrameSocket } from './frame-socket.ts';
import type { GatewayFrame, WorkerFrame } from './link-frames.ts';

export type Hello = Extract<WorkerFrame, { type: 'hello' }>;
export type Answer = Extract<WorkerFrame, { callId: string }>;

export interface OpenSequence {
  readonly spec: SequenceSpec;
  readonly queue: EventQueue<SequenceEvent>;
  tokenCount: number;
  /** As of its last token. */
  account: Account;
}

export interface JoinedWorker {
  readonly hello: Hello;
  readonly link: FrameSocket<GatewayFrame>;
  readonly joinedAt: number;
  path: ExecutionPath;
  lastHeardAt: number;
  runningCount: number;
  waitingCount: number;
  kvUsedBlockCount: number;
  readonly open: Map<string, OpenSequence>;
  readonly calls: Map<string, { resolve(answer: Answer): void; reject(error: Error): void }>;
  alternation: {
    rolloutId: string;
    resolve(completedBlockCount: number): void;
    reject(error: Error): void;
  } | null;
  switches: { pathId: string; resolve(): void; reject(error: Error): void }[];
}

export const emptyAccount: Account = {
  prefillDeviceMs: 0,
  decodeDeviceMs: 0,
  speculationWasteDeviceMs: 0,
  recomputeDeviceMs: 0,
  fitId: '',
  fitCount: 0,
};

/** A copy for the rest of the gateway, with those of `fits` that are of its model. */
export function viewOf(worker: JoinedWorker, fits: readonly StepTimeFit[]): WorkerView {
  const { workerId, bootId, pid, envelope } = worker.hello;
  return {
    workerId,
    bootId,
    pid,
    envelope,
    path: worker.path,
    pathId: pathId(worker.path),
    joinedAt: worker.joinedAt,
    lastHeardAt: worker.lastHeardAt,
    runningCount: worker.runningCount,
    waitingCount: worker.waitingCount,
    kvUsedBlockCount: worker.kvUsedBlockCount,
    fits: fits.filter((fit) => fit.modelHash === envelope.modelHash),
  };
}

/** How a sequence ends whose worker is gone: what it was charged after its last token is not known. */
export function lostSequence({ spec, tokenCount, account }: OpenSequence, message: string): EndedSequence {
  return {
    sequenceId: spec.sequenceId,
    reason: 'error',
    message,
    account,
    promptTokenCount: spec.promptTokenIds.length,
    cachedTokenCount: 0,
    completionTokenCount: tokenCount,
    preemptionCount: 0,
    queueMs: 0,
    isMixedNumerics: false,
  };
}
