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

/** The confirmed marks. */
export function confirmedMarks(windows: readonly RegimeWindow[]): Mark[] {
  let state: RegimeState = NO_REGIME;
  return windows.flatMap((window, windowIndex) => {
    const step = advance(state, window);
    state = step.state;
    return step.marks
      .filter(({ kind }) => kind === 'first' || kind === 'confirmed')
      .map((mark) => ({ ...mark, windowIndex }));
  });
}

/** Confirmed changes in one simulated day of one workload. */
export function falseAlarmsOfDay(workload: Workload, seed: number): number {
  const marks = confirmedMarks(playPhases([{ workload, windowCount: WINDOWS_A_DAY }], seed));
  return marks.length - 1;
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
const lessCached: Workload = {
  ...mixed,
  keptShare: (mixed.keptShare * (CACHED_SHARE - 0.3)) / CACHED_SHARE,
};

function sidesOf(shift: Shift): readonly [Workload, Workload] {
  switch (shift) {
    case 'prompt x1.5':
      return [mixed, { ...mixed, promptFactor: 1.5 }];
    case 'prompt /1.5':
      return [mixed, { ...mixed, promptFactor: 1 / 1.5 }];
    case 'output x1.5':
      return [mixed, { ...mixed, outputFactor: 1.5 }];
    case 'output /1.5':
      return [mixed, { ...mixed, outputFactor: 1 / 1.5 }];
    case 'arrivals x2':
      return [mixed, { ...mixed, requestsPerSecond: 2 * mixed.requestsPerSecond }];
    case 'arrivals /2':
      return [mixed, { ...mixed, requestsPerSecond: mixed.requestsPerSecond / 2 }];
    case 'cached -30 points':
      return [mixed, lessCached];
    case 'cached +30 points':
      return [lessCached, mixed];
  }
}

const QUIET_WINDOWS = 240;
export const MOST_DELAY_WINDOWS = 15;

/** Windows from the shift to its confirmation; null where there is none in time. */
export function delayOfShift(shift: Shift, seed: number): number | null {
  const [before, after] = sidesOf(shift);
  const windows = playPhases(
    [
      { workload: before, windowCount: QUIET_WINDOWS },
      { workload: after, windowCount: MOST_DELAY_WINDOWS },
    ],
    seed,
  );
  const mark = confirmedMarks(windows).find(({ windowIndex }) => windowIndex >= QUIET_WINDOWS);
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
  const marks = confirmedMarks(windows);
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
