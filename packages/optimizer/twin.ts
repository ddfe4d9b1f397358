/**
 * The twin: workers on one virtual clock, each with the real scheduler, behind the real router. Requests come from a source
 * when they are due; some only once another has ended. Called by replay.ts and by the benches. Deterministic by its seeds.
 *
 *   source --due--> choose a worker -> submit -> [ turn: leap or step ]* -> ended -> source
 */
import type { EndedSequence, SequenceSpec } from '@variator/scheduler/sequence';
import type { TwinObserver, TwinWorker } from './twin-worker.ts';

export interface TwinRequest {
  readonly at: number;
  readonly spec: SequenceSpec;
}

/** What comes when. Asked for a request only when its time has come, so that a long one is never in memory as a whole. */
export interface ArrivalSource {
  /** Whether some wait for others to end. */
  readonly isClosedLoop: boolean;
  /** When the next one comes, as far as is known now; null where nothing is due. */
  nextAt(): number | null;
  /** The next one. */
  take(): TwinRequest | null;
  ended(sequenceId: string, now: number): void;
}

export interface TwinQuestion {
  readonly workers: readonly TwinWorker[];
  readonly source: ArrivalSource;
  readonly observer: TwinRunObserver;
  /** Where there are several workers: which of them gets a request. It hears of everything before the observer does. */
  readonly router?: TwinRunObserver & { choose(request: TwinRequest): number };
  /** Nothing begins at this time or later. */
  readonly untilMs?: number;
  readonly mostSteps?: number;
}

export interface TwinRunObserver extends TwinObserver {
  arrived(request: TwinRequest, workerIndex: number): void;
  ended(ended: EndedSequence, now: number): void;
}

/**
 * Runs until nothing is left, or until a bound. Each turn belongs to whoever is first in time: an arrival before a step that
 * begins at the same time. A step's outcome is seen from its beginning on: the router knows of ends at most one step early.
 * @returns the virtual time reached
 */
export function runTwin({ workers, source, observer: reader, router, ...bounds }: TwinQuestion): number {
  const untilMs = bounds.untilMs ?? Number.POSITIVE_INFINITY;
  const mostSteps = bounds.mostSteps ?? Number.POSITIVE_INFINITY;
  const isOneOfMany = workers.length > 1;
  const observer = router === undefined ? reader : inTurn(router, reader);
  let now = Number.NEGATIVE_INFINITY;
  let stepCount = 0;
  const noteEnd = (ended: EndedSequence, at: number): void => {
    observer.ended(ended, at);
    source.ended(ended.sequenceId, at);
  };
  for (;;) {
    let first: TwinWorker | null = null;
    for (const worker of workers) {
      if (!worker.isIdle && (first === null || worker.now < first.now)) first = worker;
    }
    const nextAt = source.nextAt();
    const turnAt = Math.min(first?.now ?? Number.POSITIVE_INFINITY, nextAt ?? Number.POSITIVE_INFINITY);
    if (turnAt === Number.POSITIVE_INFINITY || turnAt >= untilMs || stepCount >= mostSteps) {
      return Number.isFinite(turnAt) ? turnAt : now;
    }
    now = Math.max(now, turnAt);
    if (nextAt !== null && nextAt <= turnAt) {
      const request = source.take();
      if (request === null) throw new Error('The source had a request due and did not give it.');
      const index = router === undefined ? 0 : router.choose(request);
      const worker = workers[index];
      if (worker === undefined) throw new Error(`There is no worker ${index}.`);
      observer.arrived(request, index);
      const ended = worker.submit(request.spec, request.at);
      if (ended !== null) noteEnd(ended, request.at);
      continue;
    }
    if (first === null) continue;
    let leapUntilMs = Math.min(nextAt ?? Number.POSITIVE_INFINITY, untilMs);
    if (isOneOfMany && source.isClosedLoop) {
      for (const worker of workers) {
        if (worker !== first) leapUntilMs = Math.min(leapUntilMs, worker.earliestEndAt());
      }
    }
    const before = first.stepCount;
    const ended = first.turn(leapUntilMs, mostSteps - stepCount, observer);
    stepCount += first.stepCount - before;
    const settledAt = first.now - first.options.betweenStepsMs;
    for (const each of ended) noteEnd(each, settledAt);
  }
}

function inTurn(first: TwinRunObserver, second: TwinRunObserver): TwinRunObserver {
  return {
    arrived(request, workerIndex) {
      first.arrived(request, workerIndex);
      second.arrived(request, workerIndex);
    },
    stepped(batch, settled, deviceMs, settledAt) {
      first.stepped(batch, settled, deviceMs, settledAt);
      second.stepped(batch, settled, deviceMs, settledAt);
    },
    leaped(leap) {
      first.leaped(leap);
      second.leaped(leap);
    },
    ended(ended, now) {
      first.ended(ended, now);
      second.ended(ended, now);
    },
  };
}
