/**
 * The workers that have joined: takes or refuses them, gives them sequences, hears what they say, and tells readers when one
 * is lost. Started by main.ts; implements fleet.ts over link-door.ts, open-sequences.ts and worker-calls.ts. Computes nothing
 * and decides no rollout.
 */
import type { StepRow } from '@variator/clickhouse/step-row';
import { type Envelope, type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { type EventQueue, eventQueue } from './event-queue.ts';
import { type Fleet, FleetError } from './fleet.ts';
import type { FrameSocket } from './frame-socket.ts';
import {
  applyBlocks,
  type Hello,
  type JoinedWorker,
  joinedWorker,
  setPath,
  viewOf,
} from './joined-worker.ts';
import { type Joining, linkDoor, type Reception } from './link-door.ts';
import type { GatewayFrame, WorkerFrame } from './link-frames.ts';
import { SUCCESSOR_WAIT_MS } from './lost-sequence.ts';
import { OpenSequences } from './open-sequences.ts';
import { placementOf } from './route-sequence.ts';
import { failCalls, settleAlternation, settleSwitches, workerCalls } from './worker-calls.ts';
import { workerFrameFault } from './worker-frame-faults.ts';

export interface FleetOptions {
  readonly linkPath: string;
  /** Null: workers of this machine alone. */
  readonly joining: Joining | null;
  /** What every worker must have; null: the first that joins decides nothing either. */
  readonly model: { readonly modelHash: string; readonly maxModelLenTokens: number } | null;
  readonly now: () => number;
  readonly log: (line: string) => void;
  readonly onRows: (rows: readonly StepRow[]) => void;
  /** The path a joining worker should run, where it differs from the one it started on; null: leave it. */
  readonly pathFor: (
    workerId: string,
    hello: { path: ExecutionPath; envelope: Envelope },
  ) => ExecutionPath | null;
}

const MOST_QUEUED_ROW_BATCHES = 10_000;
/**
 * Heartbeats come twice a second; a worker silent for 2.5 s while its socket lives is lost all the same. Counted in turns
 * of the watch: where this process itself stood still, frames lie unread and no turns passed.
 */
const WATCH_MS = 250;
const MOST_SILENT_TURNS = 10;
/** Every so many turns a worker hears that the gateway lives. */
const ALIVE_TURNS = 4;
const MOST_WORKERS = 256;

export interface WorkerFleet extends Fleet {
  listen(): Promise<void>;
  /** Where workers of other machines join; null where none do. */
  joinPort(): number | null;
  close(): Promise<void>;
}

export function workerFleet(options: FleetOptions): WorkerFleet {
  const { now, log } = options;
  const workers = new Map<string, JoinedWorker>();
  const fits = new Map<string, StepTimeFit>();
  const watchers = new Set<EventQueue<readonly StepRow[]>>();
  let isDraining = false;
  let isClosing = false;
  /** When the fleet last became smaller; null before. */
  let lostAt: number | null = null;

  const fitKey = (deviceKind: string, modelHash: string, kernels: string) =>
    `${deviceKind}/${modelHash}/${kernels}`;
  const door = linkDoor({ linkPath: options.linkPath, joining: options.joining, log, receive: meet });
  let watchTurn = 0;
  const isSuccessorExpected = () => lostAt !== null && now() - lostAt < SUCCESSOR_WAIT_MS;
  const fitFor = (deviceKind: string, modelHash: string, kernels: string): StepTimeFit | null =>
    fits.get(fitKey(deviceKind, modelHash, kernels)) ?? null;
  const sequences = new OpenSequences({
    now,
    route: (sequence) => placementOf(sequence, readyWorkers(), fitFor),
    situation: () => ({ isClosing, hasWorker: workers.size > 0, isSuccessorExpected: isSuccessorExpected() }),
  });
  const watch = setInterval(() => {
    watchTurn += 1;
    for (const worker of workers.values()) {
      if (watchTurn % ALIVE_TURNS === 0) worker.link.send({ type: 'alive' });
      worker.silentTurns += 1;
      if (worker.silentTurns > MOST_SILENT_TURNS) lose(worker, 'it has been silent for too long');
    }
    if (workers.size === 0 && sequences.waitingCount > 0 && !isSuccessorExpected())
      sequences.failWaiting(`no worker joined within ${SUCCESSOR_WAIT_MS / 1000} s`);
  }, WATCH_MS);
  watch.unref();

  /** Whether it may join, and what becomes of its frames. */
  function meet(hello: Hello, link: FrameSocket<GatewayFrame>, isRemote: boolean): Reception {
    const refusal = refusalOf(hello, isRemote);
    if (refusal !== null) return { kind: 'refused', ...refusal };
    const worker = join(hello, link, isRemote);
    return {
      kind: 'joined',
      onFrame: (frame) => hear(worker, frame),
      onClose: (error) => lose(worker, error?.message ?? 'its process ended'),
    };
  }

  function refusalOf({ workerId, bootId, envelope }: Hello, isRemote: boolean) {
    const { model } = options;
    if (model && envelope.modelHash !== model.modelHash) {
      return {
        reason: `${workerId} has another model (${envelope.modelId}, ${envelope.modelHash}) than this gateway (${model.modelHash}); give it the same files with --model`,
        isFinal: true,
      };
    }
    if (model && envelope.maxModelLenTokens < model.maxModelLenTokens) {
      return {
        reason: `${workerId} has room for ${envelope.maxModelLenTokens} tokens of one sequence, and requests may have ${model.maxModelLenTokens}; raise its --kv-memory, or lower --max-model-len of the gateway`,
        isFinal: true,
      };
    }
    const namesake = workers.get(workerId);
    // The supervisor starts a successor of its own worker under the same name; anybody else waits until that one is lost.
    if (namesake && namesake.hello.bootId !== bootId && (isRemote || namesake.isRemote)) {
      return {
        reason: `there is a worker ${workerId} already; name this one with --worker-id NAME`,
        isFinal: false,
      };
    }
    if (!namesake && workers.size >= MOST_WORKERS)
      return { reason: `there are ${MOST_WORKERS} workers already`, isFinal: false };
    return null;
  }

  function join(hello: Hello, link: FrameSocket<GatewayFrame>, isRemote: boolean): JoinedWorker {
    const before = workers.get(hello.workerId);
    if (before) lose(before, 'another process joined under its name');
    const worker = joinedWorker(hello, link, isRemote, now());
    workers.set(hello.workerId, worker);
    link.send({ type: 'alive' });
    for (const fit of fits.values()) {
      if (fit.modelHash === hello.envelope.modelHash) link.send({ type: 'useFit', fit });
    }
    const path = options.pathFor(hello.workerId, hello);
    if (path && pathId(path) !== worker.pathId) {
      worker.awaitedPathId = pathId(path);
      link.send({ type: 'switchTo', path, rolloutId: '' });
    }
    log(
      `${hello.workerId} joined: ${hello.envelope.deviceName}, path ${worker.awaitedPathId ?? worker.pathId}`,
    );
    sequences.placeWaiting();
    return worker;
  }

  /** Ends every call that waits for the worker with its reason; its sequences go on elsewhere where they can. */
  function lose(worker: JoinedWorker, reason: string): void {
    if (workers.get(worker.hello.workerId) !== worker) return;
    workers.delete(worker.hello.workerId);
    worker.link.destroy();
    lostAt = now();
    const error = new FleetError(`${worker.hello.workerId} was lost: ${reason}`);
    failCalls(worker, error);
    if (!isDraining)
      log(`${error.message}${worker.open.size === 0 ? '' : ` with ${worker.open.size} sequences`}`);
    sequences.loseWorker(worker, error.message);
  }

  /** A frame that cannot be acted on, or contradicts what came before, costs its sender alone. */
  function hear(worker: JoinedWorker, frame: WorkerFrame): void {
    const fault = workerFrameFault(frame, worker);
    if (fault === null) receive(worker, frame);
    else lose(worker, `it sent ${fault}`);
  }

  function receive(worker: JoinedWorker, frame: WorkerFrame): void {
    worker.lastHeardAt = now();
    worker.silentTurns = 0;
    switch (frame.type) {
      case 'tokens':
        try {
          sequences.takeTokens(worker, frame);
        } catch (error) {
          lose(worker, (error as Error).message);
        }
        return;
      case 'ended':
        sequences.takeEnd(worker, frame);
        return;
      case 'stepRows':
        options.onRows(frame.rows);
        for (const watcher of watchers) watcher.push(frame.rows);
        return;
      case 'heartbeat':
        worker.runningCount = frame.runningCount;
        worker.waitingCount = frame.waitingCount;
        worker.kvUsedBlockCount = frame.kvUsedBlockCount;
        worker.deviceTelemetry = frame.deviceTelemetry;
        return;
      case 'pathChanged': {
        setPath(worker, frame.path);
        const live = worker.pathId;
        settlePath(worker, live);
        settleSwitches(worker, live, '');
        return;
      }
      case 'switchRefused':
        settlePath(worker, frame.pathId);
        settleSwitches(worker, frame.pathId, frame.fault);
        return;
      case 'alternated':
        settleAlternation(worker, frame);
        return;
      case 'prepared':
      case 'checked':
      case 'calibrated':
        worker.calls.get(frame.callId)?.resolve(frame);
        return;
      case 'blocks':
        applyBlocks(worker, frame);
        return;
      case 'hello':
        // The check before has refused it.
        return;
      default:
        frame satisfies never;
    }
  }

  /** From here on it may have sequences, also where it could not switch. */
  function settlePath(worker: JoinedWorker, settledPathId: string): void {
    if (worker.awaitedPathId !== settledPathId) return;
    worker.awaitedPathId = null;
    sequences.placeWaiting();
  }

  function workerOf(workerId: string): JoinedWorker {
    const worker = workers.get(workerId);
    if (!worker) throw new FleetError(`There is no worker ${workerId}.`);
    return worker;
  }

  const readyWorkers = () => [...workers.values()].filter(({ awaitedPathId }) => awaitedPathId === null);
  const canServe = () => readyWorkers().length > 0 && !isDraining;
  const canTake = () => !isDraining && (workers.size > 0 || isSuccessorExpected());
  function unreadyReason(): string {
    if (isDraining) return 'the engine is draining';
    if (readyWorkers().length > 0) return '';
    if (workers.size > 0) return 'the worker changes to its path';
    return lostAt === null
      ? 'no worker has joined yet'
      : `the last worker was lost ${Math.round((now() - lostAt) / 1000)} s ago`;
  }

  return {
    listen: door.listen,
    joinPort: door.joinPort,
    async close() {
      isClosing = true;
      clearInterval(watch);
      for (const worker of [...workers.values()]) lose(worker, 'the gateway is closing');
      sequences.failWaiting('the gateway is closing');
      for (const watcher of watchers) watcher.end();
      await door.close();
    },
    canServe,
    canTake,
    unreadyReason,
    workers: () => [...workers.values()].map((worker) => viewOf(worker, [...fits.values()])),
    submit(spec) {
      if (!canTake()) throw new FleetError(`No sequence can be taken: ${unreadyReason()}.`);
      return sequences.submit(spec);
    },
    ...workerCalls(workerOf),
    useFit(fit) {
      fits.set(fitKey(fit.deviceKind, fit.modelHash, fit.kernelsId), fit);
      for (const worker of workers.values()) {
        if (worker.hello.envelope.modelHash === fit.modelHash) worker.link.send({ type: 'useFit', fit });
      }
    },
    fitFor,
    watchSteps(signal) {
      const queue = eventQueue<readonly StepRow[]>(MOST_QUEUED_ROW_BATCHES, () => watchers.delete(queue));
      watchers.add(queue);
      signal.addEventListener('abort', () => {
        watchers.delete(queue);
        queue.end();
      });
      return queue;
    },
    async drain(deadlineMs) {
      isDraining = true;
      const deadline = now() + deadlineMs;
      while (sequences.count > 0 && now() < deadline) await pause(20);
      for (const worker of workers.values()) worker.link.send({ type: 'drain' });
      // The worker sends its last rows and leaves; its leaving is the answer.
      const lastCall = now() + 3000;
      while (workers.size > 0 && now() < lastCall) await pause(10);
    },
  };
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms));
