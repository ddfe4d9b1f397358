/**
 * Where a twin's requests come from, one at a time, so that a million of them are never in memory together: requests that
 * come when they come, and sessions, whose next turn comes when the one before was answered and its pause has passed.
 * Recorded windows have arrival-queue.ts.
 */
import type { SequenceSpec } from '@variator/scheduler/sequence';
import { DueQueue } from './due-queue.ts';
import type { ArrivalSource, TwinRequest } from './twin.ts';

/** @param requests in order of time */
export function openLoop(requests: Iterator<TwinRequest>): ArrivalSource {
  let next = requests.next();
  return {
    isClosedLoop: false,
    nextAt: () => (next.done === true ? null : next.value.at),
    take() {
      if (next.done === true) return null;
      const { value } = next;
      next = requests.next();
      return value;
    },
    ended() {},
  };
}

export interface TwinTurn {
  /** From the end of the turn before; of the first, 0. */
  readonly pauseMs: number;
  /** Made when its time has come. `sequenceId` is unlike any other's. */
  readonly spec: () => SequenceSpec;
}

export interface TwinSession {
  readonly startsAt: number;
  readonly turns: readonly TwinTurn[];
}

/** A session whose turn is refused or ends early goes on all the same. @param sessions in order of their start */
export function sessionsOf(sessions: Iterator<TwinSession>): ArrivalSource {
  interface Place {
    readonly session: TwinSession;
    readonly index: number;
  }
  const due = new DueQueue<Place>();
  const open = new Map<string, Place>();
  const start = (): void => {
    const next = sessions.next();
    if (next.done !== true) due.add(next.value.startsAt, { session: next.value, index: 0 });
  };
  start();
  return {
    isClosedLoop: true,
    nextAt: () => due.nextAt(),
    take() {
      const taken = due.take();
      if (taken === null) return null;
      const { session, index } = taken.item;
      // Of those that have not begun, one is known at a time.
      if (index === 0) start();
      const turn = session.turns[index];
      if (turn === undefined) throw new Error('A session without a turn.');
      const spec = turn.spec();
      open.set(spec.sequenceId, taken.item);
      return { at: taken.at, spec };
    },
    ended(sequenceId, now) {
      const place = open.get(sequenceId);
      open.delete(sequenceId);
      const turn = place?.session.turns[place.index + 1];
      if (place === undefined || turn === undefined) return;
      due.add(now + turn.pauseMs, { session: place.session, index: place.index + 1 });
    },
  };
}
