/**
 * The regime detector (algorithms.md c): workload windows in, marks of a changed workload out. Called by the optimizer's
 * service with one window after the other; state is plain data. The newest 3 to 15 windows are compared with those before
 * them, feature by feature, in standard errors of such a mean: a generalised likelihood ratio over where the change began.
 * Where this departs from algorithms.md is in docs/optimizer.md.
 *
 *   first windows -> quiet --surely another mean, by more than matters--> confirmed: a known regime, or a new one
 *                    ^   |                                                    ^
 *                    |   `--perhaps-- suspected --------surely----------------'
 *                    `----------- refuted: no longer
 */
import { median } from './quantile.ts';
import {
  FEATURES,
  type FeatureName,
  type FeatureValues,
  featuresOf,
  type RegimeFeatures,
  type RegimeWindow,
  SCALES,
  valuesOf,
} from './regime-features.ts';
import { enter, keep, type Library, learnRegime, mergeLeft, recall } from './regime-library.ts';
import { nameRegime } from './regime-name.ts';
import { learnWindow, NO_REFERENCE, type Reference, varianceOfMeans } from './regime-reference.ts';

export interface RegimeDetection {
  /** A regime that comes again has the id and the name that it had. */
  readonly regimeId: string;
  readonly name: string;
  /** Start of the first window that belongs to it. */
  readonly startedAt: number;
  /** End of the window that settled it. */
  readonly detectedAt: number;
  /** False while the workload has left the regime before it, and it is not sure that it has. */
  readonly isConfirmed: boolean;
  /** Known from an earlier visit. */
  readonly isRecalled: boolean;
  /** Medians over its windows so far. */
  readonly features: RegimeFeatures;
  /** The feature that shifted most; '' for the first regime. */
  readonly risenFeature: FeatureName | '';
}

/** `refuted` marks the regime that is on again, from then on: the suspicion before it was none. */
export type RegimeMark = RegimeDetection & { readonly kind: 'first' | 'suspected' | 'confirmed' | 'refuted' };

interface SeenWindow {
  readonly startedAt: number;
  readonly sessionCount: number;
  readonly values: FeatureValues;
}

export interface RegimeState {
  /** Of the windows of this regime, but for the recent ones. */
  readonly reference: Reference;
  /** The newest windows, oldest first: a change may have begun with any of them. */
  readonly recent: readonly SeenWindow[];
  readonly isSuspected: boolean;
  readonly current: RegimeDetection | null;
  readonly library: Library;
  /** Where the next window begins; windows before it have been seen. */
  readonly seenUntil: number;
}

export const NO_REGIME: RegimeState = {
  reference: NO_REFERENCE,
  recent: [],
  isSuspected: false,
  current: null,
  library: [],
  seenUntil: 0,
};

type Step = { readonly state: RegimeState; readonly marks: readonly RegimeMark[] };

/** Fewer requests say nothing about a window. */
const LEAST_REQUESTS = 3;
/** Fewer windows are no reference, and no regime. */
const LEAST_WINDOWS = 3;
/** Until so many windows agree a change may still be under way, and a mixture of two regimes is none. */
const LEAST_SHIFTED = 4;
const MOST_SHIFTED = 15;
const MOST_RECENT = 16;
/** In standard errors. Set on simulated days (docs/optimizer.md): the mean of few windows has the longer tail. */
const CONFIRMED = 4.75;
const SUSPECTED = 3.25;
const REFUTED = 2.5;
const FEW_WINDOWS_FACTOR = 1.5;
/** Of the shift that matters, enough to hold proposals back. */
const SUSPECTED_SHARE = 0.7;
const STILL_SHARE = 0.5;

export function advance(before: RegimeState, window: RegimeWindow): Step {
  const seenUntil = window.startedAt + window.windowMs;
  if (window.requestCount < LEAST_REQUESTS) return { state: { ...before, seenUntil }, marks: [] };
  const { startedAt, sessionCount } = window;
  const seen: SeenWindow = { startedAt, sessionCount, values: valuesOf(window.features) };
  const state = learnOldest({ ...before, seenUntil, recent: [...before.recent, seen] });
  if (state.current === null) {
    return state.recent.length < LEAST_WINDOWS
      ? { state, marks: [] }
      : settle(state, state.recent, '', 'first');
  }
  const shifts = shiftsOf(state.reference, state.recent);
  const sure = mostSure(shifts.filter(({ share }) => share >= 1));
  if (sure !== null && sure.sureness >= CONFIRMED && sure.count >= LEAST_SHIFTED && isStillOn(sure, shifts)) {
    const shifted = shifts.filter(({ count }) => count === sure.count);
    const most = shifted.reduce((a, b) => (b.share > a.share ? b : a), sure);
    return settle(state, state.recent.slice(-sure.count), most.feature, 'confirmed');
  }
  const perhaps = mostSure(shifts.filter(({ share }) => share >= SUSPECTED_SHARE));
  const sureness = perhaps?.sureness ?? 0;
  if (!state.isSuspected && perhaps !== null && sureness >= SUSPECTED) {
    const own = state.recent.slice(-perhaps.count);
    return { state: { ...state, isSuspected: true }, marks: [suspicion(state, own, perhaps.feature)] };
  }
  if (!state.isSuspected || sureness >= REFUTED) return { state, marks: [] };
  const mark = { ...state.current, kind: 'refuted', startedAt: seenUntil, detectedAt: seenUntil } as const;
  return { state: { ...state, isSuspected: false }, marks: [mark] };
}

/** A window that no change can have begun with any more belongs to the regime, odd or not. */
function learnOldest(state: RegimeState): RegimeState {
  const [oldest] = state.recent;
  if (oldest === undefined || state.recent.length <= MOST_RECENT) return state;
  return { ...learn(state, [oldest]), recent: state.recent.slice(1) };
}

function learn(state: RegimeState, windows: readonly SeenWindow[]): RegimeState {
  const known = state.library.find(({ regimeId }) => regimeId === state.current?.regimeId);
  return {
    ...state,
    reference: windows.reduce(learnSeen, state.reference),
    library: known === undefined ? state.library : keep(state.library, windows.reduce(learnRegime, known)),
  };
}

const learnSeen = (reference: Reference, { values, sessionCount }: SeenWindow): Reference =>
  learnWindow(reference, values, sessionCount);

interface Shift {
  readonly feature: FeatureName;
  /** The newest so many windows, against all of the regime's before them. */
  readonly count: number;
  /** In standard errors, less where there are few windows. */
  readonly sureness: number;
  /** 1: as much as matters. */
  readonly share: number;
  readonly isUp: boolean;
}

function shiftsOf(reference: Reference, recent: readonly SeenWindow[]): Shift[] {
  const shifts: Shift[] = [];
  const newest = meansOfNewest(recent);
  let before = reference;
  recent.forEach((window, index) => {
    const count = recent.length - index;
    if (before.windowCount >= LEAST_WINDOWS && count <= MOST_SHIFTED) {
      const values = newest[count - 1] ?? [];
      const varianceOf = varianceOfMeans(before);
      const few = 1 + FEW_WINDOWS_FACTOR * (1 / count - 1 / MOST_SHIFTED);
      FEATURES.forEach((feature, at) => {
        const mean = before.mean[at] ?? null;
        const value = values[at] ?? null;
        if (mean === null || value === null) return;
        const shift = Math.abs(value - mean);
        const share = shift / SCALES[feature].material;
        shifts.push({
          feature,
          count,
          share,
          isUp: value > mean,
          sureness: shift / Math.sqrt(varianceOf(at, count)) / few,
        });
      });
    }
    before = learnSeen(before, window);
  });
  return shifts;
}

/** The newest window goes along: a few odd ones that are over would pull the mean of many for as long as they are recent. */
const isStillOn = ({ feature, isUp }: Shift, shifts: readonly Shift[]): boolean =>
  shifts.some(
    (newest) =>
      newest.count === 1 && newest.feature === feature && newest.isUp === isUp && newest.share >= STILL_SHARE,
  );

const mostSure = (shifts: readonly Shift[]): Shift | null =>
  shifts.reduce<Shift | null>((a, b) => (a === null || b.sureness > a.sureness ? b : a), null);

/** Hatched on the charts until it is settled; has no place in the library. */
function suspicion(state: RegimeState, own: readonly SeenWindow[], risenFeature: FeatureName): RegimeMark {
  const values = medians(own);
  const startedAt = own[0]?.startedAt ?? state.seenUntil;
  return {
    kind: 'suspected',
    regimeId: `suspected-${Math.round(startedAt).toString(36)}`,
    name: nameRegime(featuresOf(values)),
    startedAt,
    detectedAt: state.seenUntil,
    isConfirmed: false,
    isRecalled: false,
    features: featuresOf(values),
    risenFeature,
  };
}

/** The workload has a regime from the first of its own windows on: one of the library, or a new one. */
function settle(
  before: RegimeState,
  own: readonly SeenWindow[],
  risenFeature: FeatureName | '',
  kind: 'first' | 'confirmed',
): Step {
  const left = learn(before, before.recent.slice(0, before.recent.length - own.length));
  const values = medians(own);
  const startedAt = own[0]?.startedAt ?? before.seenUntil;
  const leftId = left.current?.regimeId ?? '';
  const library = mergeLeft(left.library, leftId);
  const known = recall(library, values, own.length, leftId);
  const regime = known ?? enter(library, values, startedAt, before.seenUntil);
  const current: RegimeDetection = {
    regimeId: regime.regimeId,
    name: regime.name,
    startedAt,
    detectedAt: before.seenUntil,
    isConfirmed: true,
    isRecalled: known !== null,
    features: featuresOf(values),
    risenFeature,
  };
  const state: RegimeState = {
    reference: NO_REFERENCE,
    recent: own,
    isSuspected: false,
    current,
    library: keep(library, { ...regime, lastSeenAt: before.seenUntil }),
    seenUntil: before.seenUntil,
  };
  return { state, marks: [{ ...current, kind }] };
}

/** Of the newest window, the newest two, and so on. */
function meansOfNewest(recent: readonly SeenWindow[]): FeatureValues[] {
  const sums = FEATURES.map(() => 0);
  const counts = FEATURES.map(() => 0);
  return recent.toReversed().map(({ values }) =>
    values.map((value, at) => {
      if (value !== null) {
        sums[at] = (sums[at] ?? 0) + value;
        counts[at] = (counts[at] ?? 0) + 1;
      }
      const count = counts[at] ?? 0;
      return count === 0 ? null : (sums[at] ?? 0) / count;
    }),
  );
}

function medians(windows: readonly SeenWindow[]): FeatureValues {
  return FEATURES.map((_, index) => {
    const values = windows.flatMap((window) => window.values[index] ?? []);
    return values.length === 0 ? null : median(values);
  });
}
