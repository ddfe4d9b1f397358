/**
 * The regime detector (algorithms.md c): workload windows in, marks of a changed workload out. Called by the optimizer's
 * service with one window after the other; state is plain data. A shift is suspected by a joint statistic (MEWMA) or by one
 * feature (CUSUM), both on whitened distances; windows that come after the suspicion confirm or refute it. A confirmed one
 * is a regime known from before, or a new one. Where this departs from algorithms.md is in docs/optimizer.md.
 *
 *   learning (3 windows) -> quiet --statistic above its limit--> suspected --6 windows, or 3 clear ones--> confirmed
 *                            ^ ^                                     |                                         |
 *                            | `------------- refuted --------------'        known: recalled; else: entered   |
 *                            `--------------------------------------------------------------------------------'
 */
import { median } from './quantile.ts';
import {
  FEATURES,
  type FeatureName,
  featuresOf,
  type RegimeFeatures,
  type RegimeWindow,
  SCALES,
  valuesOf,
} from './regime-features.ts';
import { enter, isStill, keep, type Library, learnRegime, mergeLeft, recall } from './regime-library.ts';
import {
  autocorrelationsOf,
  clip,
  distances,
  learnWindow,
  mahalanobis,
  NO_REFERENCE,
  type Reference,
  spreadsOf,
} from './regime-reference.ts';

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

/** `refuted` marks the regime that is on again: the suspicion before it was none. */
export type RegimeMark = RegimeDetection & { readonly kind: 'first' | 'suspected' | 'confirmed' | 'refuted' };

interface Cusum {
  readonly up: number;
  readonly down: number;
  /** When each side last stood at zero: where the change began, should it rise to its limit. */
  readonly upSince: number;
  readonly downSince: number;
}

interface SeenWindow {
  readonly startedAt: number;
  readonly requestCount: number;
  readonly values: readonly (number | null)[];
}

export interface RegimeState {
  readonly reference: Reference;
  /** The newest windows, from which a change takes those since it began. */
  readonly recent: readonly SeenWindow[];
  readonly cusums: readonly Cusum[];
  /** The joint statistic's moving average of whitened distances. */
  readonly average: readonly number[];
  readonly averageSince: number;
  readonly lastZ: readonly number[];
  readonly suspicion: { readonly since: number; readonly alarmAt: number } | null;
  readonly current: RegimeDetection | null;
  readonly library: Library;
  /** Where the next window begins; windows before it have been seen. */
  readonly seenUntil: number;
}

const ZEROS = FEATURES.map(() => 0);
const QUIET = { cusums: [], average: ZEROS, averageSince: 0, lastZ: ZEROS, suspicion: null } as const;
export const NO_REGIME: RegimeState = {
  ...QUIET,
  reference: NO_REFERENCE,
  recent: [],
  current: null,
  library: [],
  seenUntil: 0,
};

/** Fewer requests say nothing about a window. */
const LEAST_REQUESTS = 3;
const LEAST_REFERENCE = 3;
const MOST_RECENT = 24;
const CLIP = 4;
const SLACK = 0.5;
const CUSUM_LIMIT = 4;
const JOINT_WEIGHT = 0.15;
const JOINT_LIMIT = 15;
/** Windows after the alarm, which had no part in it. */
const LEAST_FRESH = 3;
const MOST_FRESH = 8;
/** Squared distance of the fresh windows' mean in its standard errors. */
const SURE = 26;
/** Squared distance of a single window that is clearly elsewhere. */
const FAR = 20;
const LEAST_ERRORS = 2.5;
/** A slowly moving mean is as sure as one of so many windows. */
const MOST_KNOWN = 120;

export function advance(
  state: RegimeState,
  window: RegimeWindow,
): { readonly state: RegimeState; readonly marks: readonly RegimeMark[] } {
  const seenUntil = window.startedAt + window.windowMs;
  if (window.requestCount < LEAST_REQUESTS) return { state: { ...state, seenUntil }, marks: [] };
  const { startedAt, requestCount } = window;
  const seen: SeenWindow = { startedAt, requestCount, values: valuesOf(window.features) };
  const next: RegimeState = { ...state, seenUntil, recent: [...state.recent, seen].slice(-MOST_RECENT) };
  if (state.suspicion !== null) return judge(next, state.suspicion);
  if (state.reference.windowCount < LEAST_REFERENCE) return begin(learn(next, seen));
  return watch(next, seen);
}

/** The first windows of all: the regime that is on when the detector starts. */
function begin(state: RegimeState): { state: RegimeState; marks: readonly RegimeMark[] } {
  if (state.current !== null || state.reference.windowCount < LEAST_REFERENCE) return { state, marks: [] };
  const first = state.recent.slice(-LEAST_REFERENCE);
  return settle(state, first, first[0]?.startedAt ?? state.seenUntil, '', 'first');
}

function learn(state: RegimeState, { values, requestCount }: SeenWindow): RegimeState {
  const reference = learnWindow(state.reference, values, requestCount);
  const known = state.library.find(({ regimeId }) => regimeId === state.current?.regimeId);
  const library =
    known === undefined
      ? state.library
      : keep(state.library, learnRegime(known, values, requestCount, state.seenUntil), state.seenUntil);
  return { ...state, reference, library };
}

function watch(state: RegimeState, seen: SeenWindow): { state: RegimeState; marks: readonly RegimeMark[] } {
  const { reference } = state;
  const correlations = autocorrelationsOf(reference);
  const z = distances(reference, seen.values).map((distance) => clip(distance, 2 * CLIP));
  const whitened = z.map((value, index) => {
    const correlation = correlations[index] ?? 0;
    return (value - correlation * (state.lastZ[index] ?? 0)) / Math.sqrt(1 - correlation ** 2);
  });
  const cusums = whitened.map((value, index) => nextCusum(state.cusums[index], value, seen.startedAt));
  const average = whitened.map(
    (value, index) => (1 - JOINT_WEIGHT) * (state.average[index] ?? 0) + JOINT_WEIGHT * clip(value, CLIP),
  );
  const joint = ((2 - JOINT_WEIGHT) / JOINT_WEIGHT) * mahalanobis(reference, average);
  const averageSince =
    joint < JOINT_LIMIT / 4 || state.averageSince === 0 ? state.seenUntil : state.averageSince;
  const watched = { ...state, cusums, average, averageSince, lastZ: z };

  const highest = Math.max(...cusums.flatMap(({ up, down }) => [up, down]));
  if (joint <= JOINT_LIMIT && highest <= CUSUM_LIMIT) {
    // Leaving out every odd window would make the reference look calmer than the workload is.
    const isQuiet = joint < JOINT_LIMIT / 2 && highest < CUSUM_LIMIT / 2;
    return { state: isQuiet ? learn(watched, seen) : watched, marks: [] };
  }
  const risen = cusums.find(({ up, down }) => Math.max(up, down) > CUSUM_LIMIT);
  const sinceCusum = risen === undefined ? null : risen.up > CUSUM_LIMIT ? risen.upSince : risen.downSince;
  const since = Math.min(
    sinceCusum ?? Math.min(state.averageSince || seen.startedAt, seen.startedAt),
    seen.startedAt,
  );
  const alarmed = { ...watched, suspicion: { since, alarmAt: seen.startedAt } };
  const windows = state.recent.filter(({ startedAt }) => startedAt >= since);
  return { state: alarmed, marks: [suspected(alarmed, windows)] };
}

function nextCusum(before: Cusum | undefined, value: number, startedAt: number): Cusum {
  const shift = clip(value, CLIP);
  const up = Math.max(0, (before?.up ?? 0) + shift - SLACK);
  const down = Math.max(0, (before?.down ?? 0) - shift - SLACK);
  return {
    up,
    down,
    upSince: before === undefined || before.up === 0 ? startedAt : before.upSince,
    downSince: before === undefined || before.down === 0 ? startedAt : before.downSince,
  };
}

/** Hatched on the charts until it is settled; has no place in the library yet. */
function suspected(state: RegimeState, windows: readonly SeenWindow[]): RegimeMark {
  const values = medians(windows);
  const startedAt = windows[0]?.startedAt ?? state.seenUntil;
  const { name, regimeId } = enter([], values, startedAt, state.seenUntil);
  return {
    kind: 'suspected',
    regimeId: `${regimeId}-suspected`,
    name,
    startedAt,
    detectedAt: state.seenUntil,
    isConfirmed: false,
    isRecalled: false,
    features: featuresOf(values),
    risenFeature: '',
  };
}

/** Only windows after the alarm are asked: those before it were chosen for being odd. */
function judge(
  state: RegimeState,
  { since, alarmAt }: { readonly since: number; readonly alarmAt: number },
): { state: RegimeState; marks: readonly RegimeMark[] } {
  const fresh = state.recent.filter(({ startedAt }) => startedAt > alarmAt);
  if (fresh.length < LEAST_FRESH) return { state, marks: [] };
  const isFar = ({ values }: SeenWindow): boolean =>
    mahalanobis(state.reference, distances(state.reference, values)) > FAR;
  const newest = fresh.slice(-LEAST_FRESH);
  const isClear = newest.every(isFar);
  // Far only at the end: the workload may be changing just now, and a mixture of two regimes is none.
  const isChanging = fresh.slice(-1).every(isFar) && fresh.length < MOST_FRESH + LEAST_FRESH;
  if (!isClear && (fresh.length < MOST_FRESH || isChanging)) return { state, marks: [] };
  const own = isClear ? newest : fresh;
  const shifted = mostShifted(state.reference, own);
  const isOld = isStill(state.library, state.current?.regimeId ?? '', means(own), state.reference);
  if (shifted !== null && !isOld) {
    const lastNear = state.recent.findLast((window) => !isFar(window));
    const clearSince = state.recent.find(({ startedAt }) => startedAt > (lastNear?.startedAt ?? 0));
    const startedAt = isClear ? (clearSince?.startedAt ?? since) : since;
    return settle(state, own, startedAt, shifted, 'confirmed');
  }
  if (fresh.length < MOST_FRESH) return { state, marks: [] };
  const quiet = fresh.reduce(learn, { ...state, ...QUIET });
  if (quiet.current === null) return { state: quiet, marks: [] };
  return { state: quiet, marks: [{ ...quiet.current, kind: 'refuted', detectedAt: state.seenUntil }] };
}

/**
 * The feature that shifted most, of those whose shift matters; null where there is none, or where the fresh windows as a
 * whole are not clearly elsewhere.
 */
function mostShifted(reference: Reference, fresh: readonly SeenWindow[]): FeatureName | null {
  const spreads = spreadsOf(reference);
  const correlations = autocorrelationsOf(reference);
  const values = means(fresh);
  let most = 1;
  let found: FeatureName | null = null;
  const inErrors = FEATURES.map((feature, index) => {
    const value = values[index] ?? null;
    const mean = reference.mean[index] ?? null;
    if (value === null || mean === null) return 0;
    const correlation = correlations[index] ?? 0;
    const known = Math.min(MOST_KNOWN, reference.windowCount);
    const variance = ofMean(correlation, fresh.length) + ofMean(correlation, known);
    const error = (spreads[index] ?? 1) * Math.sqrt(variance);
    const shift = Math.abs(value - mean);
    const material = shift / SCALES[feature].material;
    if (shift > LEAST_ERRORS * error && material > most) {
      most = material;
      found = feature;
    }
    return (value - mean) / error;
  });
  return mahalanobis(reference, inErrors) > SURE ? found : null;
}

/** The variance of the mean of so many neighbours with this autocorrelation, in variances of one. */
function ofMean(correlation: number, count: number): number {
  let sum = 1;
  for (let lag = 1; lag < count; lag += 1) sum += 2 * (1 - lag / count) * correlation ** lag;
  return sum / count;
}

/** The workload has a regime from here on: one of the library, or a new one. */
function settle(
  state: RegimeState,
  own: readonly SeenWindow[],
  startedAt: number,
  risenFeature: FeatureName | '',
  kind: 'first' | 'confirmed',
): { state: RegimeState; marks: readonly RegimeMark[] } {
  const values = medians(own);
  const leftId = state.current?.regimeId ?? '';
  const library = mergeLeft(state.library, leftId, state.reference);
  const known = recall(library, values, own.length, state.reference, leftId);
  const regime = known ?? enter(library, values, startedAt, state.seenUntil);
  const current: RegimeDetection = {
    regimeId: regime.regimeId,
    name: regime.name,
    startedAt,
    detectedAt: state.seenUntil,
    isConfirmed: true,
    isRecalled: known !== null,
    features: featuresOf(values),
    risenFeature,
  };
  const settled = own.reduce(learn, {
    ...state,
    ...QUIET,
    reference: NO_REFERENCE,
    recent: own,
    current,
    library: keep(library, regime, state.seenUntil),
  });
  return { state: settled, marks: [{ ...current, kind }] };
}

function means(windows: readonly SeenWindow[]): (number | null)[] {
  return FEATURES.map((_, index) => {
    const values = windows.flatMap((window) => window.values[index] ?? []);
    return values.length === 0 ? null : values.reduce((sum, value) => sum + value, 0) / values.length;
  });
}

function medians(windows: readonly SeenWindow[]): (number | null)[] {
  return FEATURES.map((_, index) => {
    const values = windows.flatMap((window) => window.values[index] ?? []);
    return values.length === 0 ? null : median(values);
  });
}
