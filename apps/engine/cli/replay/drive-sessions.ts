/**
 * Sends planned sessions at their times: the first turn of each when the trace says so, whatever the server does (open
 * loop), every further turn when the one before was answered and its pause has passed (closed loop). Bounded: no more
 * requests under way than asked for; what has to wait for a place is late, and its lateness is counted, not hidden.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { SeenAnswer } from './answer-request.ts';
import type { PlannedSession, PlannedTurn } from './planned-traffic.ts';
import type { LiveAnswer, LiveAnswers } from './prompt-writer.ts';

export interface TurnRecord {
  readonly session: PlannedSession;
  readonly turnIndex: number;
  readonly turn: PlannedTurn;
  /** When it should have been sent. */
  readonly intendedAt: number;
  readonly seen: SeenAnswer;
}

export interface DriveOptions {
  readonly speed: number;
  readonly fromMs: number;
  /** null: until the trace ends. */
  readonly durationMs: number | null;
  readonly mostTurnCount: number;
  readonly maxInFlight: number;
  readonly hasLiveAnswers: boolean;
  readonly send: (session: PlannedSession, turn: PlannedTurn, answers: LiveAnswers) => Promise<SeenAnswer>;
  readonly onTurn: (record: TurnRecord) => void;
  /** Ends it in order: nothing more is sent, and `send` is expected to end what is under way. */
  readonly signal: AbortSignal;
}

export interface DriveResult {
  readonly startedAt: number;
  readonly endedAt: number;
  readonly sessionCount: number;
  /** Turns of begun sessions that were never sent: a turn before failed, or the time was over. */
  readonly unsentTurnCount: number;
}

/** Sessions between two turns hold a little memory each. */
const MOST_OPEN_SESSIONS = 20_000;

export async function driveSessions(
  sessions: AsyncIterable<PlannedSession>,
  options: DriveOptions,
): Promise<DriveResult> {
  const { speed, fromMs, durationMs, signal, maxInFlight } = options;
  const places = new Places(maxInFlight);
  const open = new Set<Promise<void>>();
  const startedAt = performance.now();
  const endsAt = durationMs === null ? Number.POSITIVE_INFINITY : startedAt + durationMs;
  let sentTurnCount = 0;
  let sessionCount = 0;
  let unsentTurnCount = 0;
  const isOver = () =>
    signal.aborted || performance.now() >= endsAt || sentTurnCount >= options.mostTurnCount;
  /** False where the end came first. */
  const until = async (at: number): Promise<boolean> => {
    await sleepUntil(Math.min(at, endsAt), signal);
    return at < endsAt && !signal.aborted;
  };

  async function run(session: PlannedSession, startsAt: number, firstPlace: () => void): Promise<void> {
    const answers = new Map<number, LiveAnswer>();
    let intendedAt = startsAt;
    let release: (() => void) | null = firstPlace;
    for (const [turnIndex, turn] of session.turns.entries()) {
      if (turnIndex > 0) {
        intendedAt = performance.now() + turn.pauseMs / speed;
        release = (await until(intendedAt)) ? await places.take() : null;
      }
      if (release === null || isOver()) {
        release?.();
        unsentTurnCount += session.turns.length - turnIndex;
        return;
      }
      sentTurnCount += 1;
      const seen = await options.send(session, turn, answers).finally(release);
      options.onTurn({ session, turnIndex, turn, intendedAt, seen });
      if (seen.fault !== '') {
        unsentTurnCount += session.turns.length - turnIndex - 1;
        return;
      }
      if (options.hasLiveAnswers) answers.set(turnIndex, { text: seen.text, tokenIds: seen.tokenIds });
    }
  }

  for await (const session of sessions) {
    if (session.startsAtMs < fromMs) continue;
    const startsAt = startedAt + (session.startsAtMs - fromMs) / speed;
    if (isOver() || !(await until(startsAt))) break;
    while (open.size >= MOST_OPEN_SESSIONS) await Promise.race(open);
    const release = await places.take();
    if (isOver()) {
      release();
      break;
    }
    sessionCount += 1;
    const ran = run(session, startsAt, release);
    const tracked: Promise<void> = ran.finally(() => open.delete(tracked));
    open.add(tracked);
  }
  await Promise.all(open);
  return { startedAt, endedAt: performance.now(), sessionCount, unsentTurnCount };
}

/** Timers end early by up to a millisecond; a request is never sent before its time. */
async function sleepUntil(at: number, signal: AbortSignal): Promise<void> {
  for (let rest = at - performance.now(); rest > 0 && !signal.aborted; rest = at - performance.now()) {
    await pause(Math.min(2 ** 31 - 1, Math.ceil(rest)), undefined, { signal }).catch(() => undefined);
  }
}

/** So many at once; the others in the order they came. */
class Places {
  #freeCount: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#freeCount = count;
  }

  /** Resolves with what gives the place back. */
  async take(): Promise<() => void> {
    if (this.#freeCount > 0) this.#freeCount -= 1;
    else await new Promise<void>((resolve) => this.#waiting.push(resolve));
    let isGivenBack = false;
    return () => {
      if (isGivenBack) return;
      isGivenBack = true;
      const next = this.#waiting.shift();
      if (next) next();
      else this.#freeCount += 1;
    };
  }
}
