/**
 * The workers that have joined: listens for them on the link, gives them sequences, carries calls and their answers, and
 * tells readers when a worker is lost. Started by main.ts; implements fleet.ts. Computes nothing and decides no rollout.
 */
import { randomUUID } from 'node:crypto';
import { rmSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import type { StepRow } from '@variator/clickhouse/step-row';
import { type Envelope, type ExecutionPath, pathFaults, pathId } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { type EventQueue, eventQueue } from './event-queue.ts';
import { type Fleet, FleetError } from './fleet.ts';
import { type FrameSocket, frameSocket } from './frame-socket.ts';
import {
  type Answer,
  applyBlocks,
  type Hello,
  type JoinedWorker,
  joinedWorker,
  setPath,
  viewOf,
} from './joined-worker.ts';
import { type GatewayFrame, LINK_VERSION, type WorkerFrame } from './link-frames.ts';
import { SUCCESSOR_WAIT_MS } from './lost-sequence.ts';
import { OpenSequences } from './open-sequences.ts';
import { placementOf } from './route-sequence.ts';

export interface FleetOptions {
  readonly linkPath: string;
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
const CALL_LIMIT_MS = 120_000;
/** Calibration waits for its small share of the device's time. */
const CALIBRATION_LIMIT_MS = 3_600_000;

export interface WorkerFleet extends Fleet {
  listen(): Promise<void>;
  close(): Promise<void>;
}

export function workerFleet(options: FleetOptions): WorkerFleet {
  const { now, log } = options;
  const workers = new Map<string, JoinedWorker>();
  const fits = new Map<string, StepTimeFit>();
  const watchers = new Set<EventQueue<readonly StepRow[]>>();
  const sockets = new Set<Socket>();
  let isDraining = false;
  let isClosing = false;
  /** When the fleet last became smaller; null before. */
  let lostAt: number | null = null;

  const fitKey = (deviceKind: string, modelHash: string, kernels: string) =>
    `${deviceKind}/${modelHash}/${kernels}`;
  const server: Server = createServer(welcome);
  const isSuccessorExpected = () => lostAt !== null && now() - lostAt < SUCCESSOR_WAIT_MS;
  const fitFor = (deviceKind: string, modelHash: string, kernels: string): StepTimeFit | null =>
    fits.get(fitKey(deviceKind, modelHash, kernels)) ?? null;
  const sequences = new OpenSequences({
    now,
    route: (sequence) => placementOf(sequence, readyWorkers(), fitFor),
    situation: () => ({ isClosing, hasWorker: workers.size > 0, isSuccessorExpected: isSuccessorExpected() }),
  });
  const watch = setInterval(() => {
    for (const worker of workers.values()) {
      worker.silentTurns += 1;
      if (worker.silentTurns > MOST_SILENT_TURNS) lose(worker, 'it has been silent for too long');
    }
    if (workers.size === 0 && sequences.waitingCount > 0 && !isSuccessorExpected())
      sequences.failWaiting(`no worker joined within ${SUCCESSOR_WAIT_MS / 1000} s`);
  }, WATCH_MS);
  watch.unref();

  function welcome(socket: Socket): void {
    let worker: JoinedWorker | null = null;
    sockets.add(socket);
    const link: FrameSocket<GatewayFrame> = frameSocket<WorkerFrame, GatewayFrame>(
      socket,
      (frame) => {
        if (worker) receive(worker, frame);
        else if (frame.type === 'hello' && frame.version === LINK_VERSION) worker = join(frame, link);
        else {
          log(`a worker was refused: it speaks another version of the link (ours is ${LINK_VERSION})`);
          socket.destroy();
        }
      },
      (error) => {
        sockets.delete(socket);
        if (worker) lose(worker, error?.message ?? 'its process ended');
      },
    );
  }

  function join(hello: Hello, link: FrameSocket<GatewayFrame>): JoinedWorker {
    const before = workers.get(hello.workerId);
    if (before) lose(before, 'another process joined under its name');
    const worker = joinedWorker(hello, link, now());
    workers.set(hello.workerId, worker);
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
    for (const { resolve: _resolve, reject } of worker.calls.values()) reject(error);
    for (const { reject } of worker.switches) reject(error);
    worker.alternation?.reject(error);
    if (!isDraining)
      log(`${error.message}${worker.open.size === 0 ? '' : ` with ${worker.open.size} sequences`}`);
    sequences.loseWorker(worker, error.message);
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
        return;
      case 'pathChanged': {
        setPath(worker, frame.path);
        const live = worker.pathId;
        settlePath(worker, live);
        worker.switches = worker.switches.filter((waiting) => {
          if (waiting.pathId !== live) return true;
          waiting.resolve();
          return false;
        });
        return;
      }
      case 'switchRefused':
        settlePath(worker, frame.pathId);
        worker.switches = worker.switches.filter((waiting) => {
          if (waiting.pathId !== frame.pathId) return true;
          waiting.reject(new FleetError(`${worker.hello.workerId} cannot switch: ${frame.fault}`));
          return false;
        });
        return;
      case 'alternated':
        if (worker.alternation?.rolloutId === frame.rolloutId) {
          worker.alternation.resolve(frame.completedBlockCount);
          worker.alternation = null;
        }
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
        lose(worker, 'it said hello twice');
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

  /** Sends a frame that the worker answers by callId. @throws FleetError when it is lost or silent for CALL_LIMIT_MS */
  async function call<Type extends Answer['type']>(
    workerId: string,
    answerType: Type,
    frame: (callId: string) => GatewayFrame,
    limitMs = CALL_LIMIT_MS,
  ): Promise<Extract<Answer, { type: Type }>> {
    const worker = workerOf(workerId);
    const callId = randomUUID();
    const limit = timeLimit(`${workerId} did not answer within ${limitMs / 1000} s`, limitMs);
    try {
      const answer = await Promise.race([
        new Promise<Answer>((resolve, reject) => {
          worker.calls.set(callId, { resolve, reject });
          worker.link.send(frame(callId));
        }),
        limit.promise,
      ]);
      if (answer.type !== answerType)
        throw new FleetError(`${workerId} answered ${answer.type} to ${answerType}`);
      return answer as Extract<Answer, { type: Type }>;
    } finally {
      limit.clear();
      worker.calls.delete(callId);
    }
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
    listen() {
      // A socket file left by a killed gateway would make the address look taken.
      rmSync(options.linkPath, { force: true });
      return new Promise((resolve, reject) => {
        server.once('error', reject);
        server.listen(options.linkPath, () => resolve());
      });
    },
    async close() {
      isClosing = true;
      clearInterval(watch);
      for (const worker of [...workers.values()]) lose(worker, 'the gateway is closing');
      sequences.failWaiting('the gateway is closing');
      for (const watcher of watchers) watcher.end();
      for (const socket of sockets) socket.destroy();
      await new Promise<void>((resolve) => server.close(() => resolve()));
    },
    canServe,
    canTake,
    unreadyReason,
    workers: () => [...workers.values()].map((worker) => viewOf(worker, [...fits.values()])),
    submit(spec) {
      if (!canTake()) throw new FleetError(`No sequence can be taken: ${unreadyReason()}.`);
      return sequences.submit(spec);
    },
    async prepare(workerId, path) {
      const { faults, prepareMs } = await call(workerId, 'prepared', (callId) => ({
        type: 'prepare',
        callId,
        path,
      }));
      return { faults, prepareMs };
    },
    async switchTo(workerId, path, rolloutId) {
      const worker = workerOf(workerId);
      const faults = pathFaults(path, worker.hello.envelope);
      if (faults.length > 0) throw new FleetError(faults.join(' '));
      const wanted = pathId(path);
      const limit = timeLimit(`${workerId} did not switch within ${CALL_LIMIT_MS / 1000} s`, CALL_LIMIT_MS);
      const waiting = { pathId: wanted, resolve: () => {}, reject: (_error: Error) => {} };
      try {
        await Promise.race([
          new Promise<void>((resolve, reject) => {
            waiting.resolve = resolve;
            waiting.reject = reject;
            worker.switches.push(waiting);
            worker.link.send({ type: 'switchTo', path, rolloutId });
          }),
          limit.promise,
        ]);
      } finally {
        limit.clear();
        worker.switches = worker.switches.filter((other) => other !== waiting);
      }
    },
    async alternate(workerId, { rolloutId, incumbent, candidate, blocks }) {
      const worker = workerOf(workerId);
      const frame: GatewayFrame = { type: 'alternate', rolloutId, incumbent, candidate, blocks };
      if (blocks.length === 0) {
        worker.link.send(frame);
        return { completedBlockCount: 0 };
      }
      if (worker.alternation)
        throw new FleetError(`${workerId} already alternates for rollout ${worker.alternation.rolloutId}.`);
      const completedBlockCount = await new Promise<number>((resolve, reject) => {
        worker.alternation = { rolloutId, resolve, reject };
        worker.link.send(frame);
      });
      return { completedBlockCount };
    },
    async check(workerId, path, prompts) {
      const answer = await call(workerId, 'checked', (callId) => ({ type: 'check', callId, path, prompts }));
      if (answer.fault !== '') throw new FleetError(answer.fault);
      return answer.outputs;
    },
    async calibrate(workerId, path, cases) {
      const frame = (callId: string): GatewayFrame => ({ type: 'calibrate', callId, path, cases });
      const answer = await call(workerId, 'calibrated', frame, CALIBRATION_LIMIT_MS);
      if (answer.fault !== '') throw new FleetError(answer.fault);
      return { stepCount: answer.stepCount, deviceMs: answer.deviceMs };
    },
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

function timeLimit(message: string, limitMs: number): { promise: Promise<never>; clear(): void } {
  let timer: NodeJS.Timeout | undefined;
  const promise = new Promise<never>((_, reject) => {
    timer = setTimeout(() => reject(new FleetError(message)), limitMs);
  });
  return { promise, clear: () => clearTimeout(timer) };
}
