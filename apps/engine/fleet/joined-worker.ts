/**
 * What the gateway keeps of a worker that has joined: its link, its open sequences, the calls it owes an answer to. Owned
 * and changed by worker-fleet.ts and open-sequences.ts alone; others get a WorkerView.
 */
import { type ExecutionPath, numericsId, pathId } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { WorkerView } from './fleet.ts';
import type { FrameSocket } from './frame-socket.ts';
import type { DeviceTelemetry, GatewayFrame, WorkerFrame } from './link-frames.ts';
import type { OpenSequence } from './open-sequences.ts';

export type Hello = Extract<WorkerFrame, { type: 'hello' }>;
export type Answer = Extract<WorkerFrame, { callId: string }>;

export interface JoinedWorker {
  readonly hello: Hello;
  readonly link: FrameSocket<GatewayFrame>;
  /** From another machine, over TCP. */
  readonly isRemote: boolean;
  readonly joinedAt: number;
  path: ExecutionPath;
  /** It gets no sequence before it has left the path it started on for this one; null once it has. */
  awaitedPathId: string | null;
  pathId: string;
  numericsId: string;
  lastHeardAt: number;
  /** Turns of the gateway's watch since then. */
  silentTurns: number;
  runningCount: number;
  waitingCount: number;
  kvUsedBlockCount: number;
  deviceTelemetry: DeviceTelemetry | null;
  /** What its prefix cache holds, as it told; at most one for each of its KV blocks. */
  readonly blockHashes: Set<string>;
  /** By the name they have there. */
  readonly open: Map<string, OpenSequence>;
  readonly calls: Map<string, { resolve(answer: Answer): void; reject(error: Error): void }>;
  alternation: {
    rolloutId: string;
    resolve(completedBlockCount: number): void;
    reject(error: Error): void;
  } | null;
  switches: { pathId: string; resolve(): void; reject(error: Error): void }[];
}

export function joinedWorker(
  hello: Hello,
  link: FrameSocket<GatewayFrame>,
  isRemote: boolean,
  now: number,
): JoinedWorker {
  return {
    hello,
    link,
    isRemote,
    joinedAt: now,
    path: hello.path,
    awaitedPathId: null,
    pathId: pathId(hello.path),
    numericsId: numericsId(hello.path),
    lastHeardAt: now,
    silentTurns: 0,
    runningCount: 0,
    waitingCount: 0,
    kvUsedBlockCount: 0,
    deviceTelemetry: null,
    blockHashes: new Set(),
    open: new Map(),
    calls: new Map(),
    alternation: null,
    switches: [],
  };
}

export function setPath(worker: JoinedWorker, path: ExecutionPath): void {
  worker.path = path;
  worker.pathId = pathId(path);
  worker.numericsId = numericsId(path);
}

/** What left is told with what entered in the same step, and left before. */
export function applyBlocks(
  { blockHashes, hello }: JoinedWorker,
  { entered, left }: Extract<WorkerFrame, { type: 'blocks' }>,
): void {
  for (const hash of left) blockHashes.delete(hash);
  for (const hash of entered) {
    if (
      blockHashes.size >=
      Math.max(hello.envelope.kvBlockCount, ...Object.values(hello.envelope.kvBlockCounts))
    )
      return;
    blockHashes.add(hash);
  }
}

/** A copy for the rest of the gateway, with those of `fits` that are of its model. */
export function viewOf(worker: JoinedWorker, fits: readonly StepTimeFit[]): WorkerView {
  const { workerId, bootId, pid, envelope } = worker.hello;
  return {
    workerId,
    bootId,
    pid,
    envelope,
    path: worker.path,
    pathId: worker.pathId,
    joinedAt: worker.joinedAt,
    lastHeardAt: worker.lastHeardAt,
    runningCount: worker.runningCount,
    waitingCount: worker.waitingCount,
    kvUsedBlockCount: worker.kvUsedBlockCount,
    deviceTelemetry: worker.deviceTelemetry,
    fits: fits.filter((fit) => fit.modelHash === envelope.modelHash),
  };
}
