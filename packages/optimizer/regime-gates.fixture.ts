/**
 * Plays simulated traffic through the regime detector and counts what its gates ask: false alarms a day, shifts confirmed
 * in time, regimes recalled, unseen ones told apart. Used by regime-gates.test.ts (few runs) and the bench (all of them).
 */
import { advance, NO_REGIME, type RegimeMark, type RegimeState } from './regime.ts';
import type { RegimeWindow } from './regime-features.ts';
import { seededRandom } from './seeded-random.ts';
import {
  cachedShareOf,
  mixed,
  playPhases,
  WINDOWS_A_DAY,
  type Workload,
  workloads,
} from './simulated-traffic.fixture.ts';

export interface Mark extends RegimeMark {
  /** The window that raised it. */
  readonly windowIndex: number;
}

interface Played {
  /** The confirmed marks. */
  readonly marks: readonly Mark[];
  readonly suspicionCount: number;
  /** Of the windows, those after which proposals were held back. */
  readonly suspectedShare: number;
}

function playThrough(windows: readonly RegimeWindow[]): Played {
  let state: RegimeState = NO_REGIME;
  let suspicionCount = 0;
  let suspectedCount = 0;
  const marks = windows.flatMap((window, windowIndex) => {
    const step = advance(state, window);
    state = step.state;
    suspectedCount += state.isSuspected ? 1 : 0;
    suspicionCount += step.marks.filter(({ kind }) => kind === 'suspected').length;
    return step.marks
      .filter(({ kind }) => kind === 'first' || kind === 'confirmed')
      .map((mark) => ({ ...mark, windowIndex }));
  });
  return { marks, suspicionCount, suspectedShare: suspectedCount / windows.length };
}

export interface Day {
  readonly falseAlarmCount: number;
  readonly suspicionCount: number;
  readonly suspectedShare: number;
}

/** One simulated day of one workload: every confirmed change is a false alarm. */
export function quietDay(workload: Workload, seed: number): Day {
  const { marks, ...day } = playThrough(playPhases([{ workload, windowCount: WINDOWS_A_DAY }], seed));
  return { falseAlarmCount: marks.length - 1, ...day };
}

/** Half as much again, or the inverse, in lengths; twice or half the arrivals; 30 points of cached share. */
export const shifts = [
  'prompt x1.5',
  'prompt /1.5',
  'output x1.5',
  'output /1.5',
  'arrivals x2',
  'arrivals /2',
  'cached -30 points',
  'cached +30 points',
] as const;
export type Shift = (typeof shifts)[number];

const CACHED_SHARE = cachedShareOf(mixed, 1);

function sidesOf(shift: Shift, base: Workload): readonly [Workload, Workload] {
  const lessCached = { ...base, keptShare: (base.keptShare * (CACHED_SHARE - 0.3)) / CACHED_SHARE };
  switch (shift) {
    case 'prompt x1.5':
      return [base, { ...base, promptFactor: 1.5 }];
    case 'prompt /1.5':
      return [base, { ...base, promptFactor: 1 / 1.5 }];
    case 'output x1.5':
      return [base, { ...base, outputFactor: 1.5 }];
    case 'output /1.5':
      return [base, { ...base, outputFactor: 1 / 1.5 }];
    case 'arrivals x2':
      return [base, { ...base, requestsPerSecond: 2 * base.requestsPerSecond }];
    case 'arrivals /2':
      return [base, { ...base, requestsPerSecond: base.requestsPerSecond / 2 }];
    case 'cached -30 points':
      return [base, lessCached];
    case 'cached +30 points':
      return [lessCached, base];
  }
}

const QUIET_WINDOWS = 240;
export const MOST_DELAY_WINDOWS = 15;

/** Windows from the shift to its confirmation; null where there is none in time. */
export function delayOfShift(shift: Shift, base: Workload, seed: number): number | null {
  const [before, after] = sidesOf(shift, base);
  const windows = playPhases(
    [
      { workload: before, windowCount: QUIET_WINDOWS },
      { workload: after, windowCount: MOST_DELAY_WINDOWS },
    ],
    seed,
  );
  const mark = playThrough(windows).marks.find(({ windowIndex }) => windowIndex >= QUIET_WINDOWS);
  return mark === undefined ? null : mark.windowIndex - QUIET_WINDOWS + 1;
}

export interface RecallCount {
  readonly recalled: number;
  readonly recurrences: number;
  readonly rejected: number;
  readonly unseen: number;
}

const VISIT_WINDOWS = 40;

/** Seven workloads once, the eighth, and the seven again in another order: are the seven known, and is the eighth not? */
export function recallWithout(leftOut: number, seed: number): RecallCount {
  const random = seededRandom(1000 * seed + leftOut);
  const known = workloads.map((_, index) => index).filter((index) => index !== leftOut);
  const shuffled = (): number[] =>
    known
      .map((index) => ({ index, key: random.uniform() }))
      .sort((a, b) => a.key - b.key)
      .map(({ index }) => index);
  const first = shuffled();
  const order = [...first, leftOut, ...shuffled()];
  const windows = playPhases(
    order.map((index) => ({ workload: workloads[index] ?? mixed, windowCount: VISIT_WINDOWS })),
    1000 * seed + leftOut,
  );
  const { marks } = playThrough(windows);
  /** The regime that a visit ended in. */
  const regimeAtEnd = order.map(
    (_, visit) => marks.filter((mark) => mark.windowIndex < (visit + 1) * VISIT_WINDOWS).at(-1)?.regimeId,
  );
  const idOf = new Map(first.map((index, visit) => [index, regimeAtEnd[visit]]));
  const again = order.slice(known.length + 1);
  return {
    recalled: again.filter((index, visit) => regimeAtEnd[known.length + 1 + visit] === idOf.get(index))
      .length,
    recurrences: again.length,
    rejected: regimeAtEnd.slice(0, known.length).includes(regimeAtEnd[known.length]) ? 0 : 1,
    unseen: 1,
  };
}
