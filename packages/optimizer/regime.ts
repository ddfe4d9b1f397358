/**
 * The first regime detector: short workload windows, robust z against a learned reference, one two-sided CUSUM a feature
 * (algorithms.md c, without the joint statistic and the recall of known regimes). Called by the optimizer's service with
 * one window after the other; state is plain data. Its marks gate nothing yet.
 *
 *   learning (3 windows) -> quiet --CUSUM above its limit--> still shifted? --yes--> mark, learn anew from the change on
 *                             ^                                   | no: statistics to zero
 *                             `-----------------------------------'
 */
import { median, quantile, robustSpread } from './quantile.ts';
import { nameRegime } from './regime-name.ts';

export const FEATURES = [
  'meanLogPrompt',
  'p90LogPrompt',
  'meanLog1pUncached',
  'meanLogOutput',
  'logArrivalRate',
  'logCv2',
  'meanHitShare',
] as const;
export type FeatureName = (typeof FEATURES)[number];
/** Natural logarithms; null where the window had too few requests for it. */
export type RegimeFeatures = Readonly<Record<FeatureName, number | null>>;

export interface RegimeWindow {
  readonly startedAt: number;
  readonly windowMs: number;
  readonly requestCount: number;
  readonly features: RegimeFeatures;
}

export interface RegimeDetection {
  readonly regimeId: string;
  readonly name: string;
  /** Start of the first window that belongs to it. */
  readonly startedAt: number;
  /** End of the window that settled it. */
  readonly detectedAt: number;
  readonly isConfirmed: boolean;
  /** Medians over its windows so far. */
  readonly features: RegimeFeatures;
  /** The feature whose CUSUM rose; '' for the first regime. */
  readonly risenFeature: FeatureName | '';
}

interface Cusum {
  readonly up: number;
  readonly down: number;
  /** When each side last stood at zero: where the change began, should it rise to its limit. */
  readonly upSince: number;
  readonly downSince: number;
  readonly lastZ: number;
}

export interface RegimeState {
  readonly reference: readonly RegimeWindow[];
  /** Windows since the oldest CUSUM left zero; they become the reference after a change. */
  readonly recent: readonly RegimeWindow[];
  readonly cusums: Readonly<Partial<Record<FeatureName, Cusum>>>;
  readonly current: RegimeDetection | null;
}

export const NO_REGIME: RegimeState = { reference: [], recent: [], cusums: {}, current: null };

/** Fewer requests say nothing about a window. */
const LEAST_REQUESTS = 3;
const LEAST_REFERENCE = 3;
/** Ten minutes of five-second windows: slow changes of a day become the reference. */
const MOST_REFERENCE = 120;
const MOST_RECENT = 64;
/** Autocorrelation is not estimated from fewer windows. */
const LEAST_FOR_WHITENING = 30;
const CLIP = 5;
const SLACK = 0.75;
const LIMIT = 8;
/** A shift below this many spreads is not confirmed. */
const LEAST_SHIFT = 1.5;

/**
 * What a feature's spread is never taken to be below: `floor` whatever the reference says, and the sampling error of the
 * window's requests, `perRequest` / sqrt(requests). Prompt lengths state theirs by the reference's own p90.
 */
const SPREADS: Readonly<Record<FeatureName, { floor: number; perRequest: number; perPromptSpread: number }>> =
  {
    meanLogPrompt: { floor: 0.15, perRequest: 0, perPromptSpread: 1.2 },
    p90LogPrompt: { floor: 0.25, perRequest: 0, perPromptSpread: 3 },
    meanLog1pUncached: { floor: 0.2, perRequest: 0, perPromptSpread: 1.2 },
    meanLogOutput: { floor: 0.2, perRequest: 0.7, perPromptSpread: 0 },
    logArrivalRate: { floor: 0.25, perRequest: 1, perPromptSpread: 0 },
    logCv2: { floor: 0.5, perRequest: 2, perPromptSpread: 0 },
    meanHitShare: { floor: 0.1, perRequest: 0.3, perPromptSpread: 0 },
  };
const LEAST_PROMPT_SPREAD = 0.3;

export function advance(
  state: RegimeState,
  window: RegimeWindow,
): { readonly state: RegimeState; readonly marks: readonly RegimeDetection[] } {
  if (window.requestCount < LEAST_REQUESTS) return { state, marks: [] };
  if (state.reference.length < LEAST_REFERENCE) return learn(state, window);

  const cusums: Partial<Record<FeatureName, Cusum>> = {};
  let risen: { feature: FeatureName; since: number } | null = null;
  let highest = 0;
  for (const feature of FEATURES) {
    const next = nextCusum(state, window, feature);
    cusums[feature] = next;
    highest = Math.max(highest, next.up, next.down);
    if (risen === null && next.up > LIMIT) risen = { feature, since: next.upSince };
    if (risen === null && next.down > LIMIT) risen = { feature, since: next.downSince };
  }
  const recent = [...state.recent, window].slice(-MOST_RECENT);
  if (risen !== null) return settle({ ...state, recent }, window, risen.feature, risen.since);
  // Leaving out every odd window would make the reference look calmer than the workload is.
  const isQuiet = highest < LIMIT / 2;
  const reference = isQuiet ? [...state.reference, window].slice(-MOST_REFERENCE) : state.reference;
  return { state: { ...state, reference, recent, cusums }, marks: [] };
}

function learn(
  state: RegimeState,
  window: RegimeWindow,
): { state: RegimeState; marks: readonly RegimeDetection[] } {
  const reference = [...state.reference, window];
  const first = reference[0] ?? window;
  if (state.current !== null || reference.length < LEAST_REFERENCE) {
    return { state: { ...state, reference }, marks: [] };
  }
  const current = detection(reference, first.startedAt, window, '');
  return { state: { ...state, reference, current }, marks: [current] };
}

/** A CUSUM is above its limit: a new regime if the windows since then are truly elsewhere. */
function settle(
  state: RegimeState,
  window: RegimeWindow,
  risenFeature: FeatureName,
  since: number,
): { state: RegimeState; marks: readonly RegimeDetection[] } {
  const after = state.recent.filter((recent) => recent.startedAt >= since);
  const shifts = after.map((recent) => zOf(state.reference, recent, risenFeature));
  if (Math.abs(median(shifts)) < LEAST_SHIFT) {
    return { state: { ...state, cusums: {}, recent: [] }, marks: [] };
  }
  const current = detection(after, after[0]?.startedAt ?? window.startedAt, window, risenFeature);
  return { state: { reference: after, recent: [], cusums: {}, current }, marks: [current] };
}

function detection(
  windows: readonly RegimeWindow[],
  startedAt: number,
  last: RegimeWindow,
  risenFeature: FeatureName | '',
): RegimeDetection {
  const features = Object.fromEntries(
    FEATURES.map((feature) => {
      const values = windows.flatMap((window) => window.features[feature] ?? []);
      return [feature, values.length === 0 ? null : median(values)];
    }),
  ) as Record<FeatureName, number | null>;
  return {
    regimeId: `regime-${Math.round(startedAt).toString(36)}`,
    name: nameRegime(features),
    startedAt,
    detectedAt: last.startedAt + last.windowMs,
    isConfirmed: true,
    features,
    risenFeature,
  };
}

function nextCusum(state: RegimeState, window: RegimeWindow, feature: FeatureName): Cusum {
  const before = state.cusums[feature];
  const z = zOf(state.reference, window, feature);
  const whitened = z - autocorrelation(state.reference, feature) * (before?.lastZ ?? 0);
  const shift = Math.min(CLIP, Math.max(-CLIP, whitened));
  const up = Math.max(0, (before?.up ?? 0) + shift - SLACK);
  const down = Math.max(0, (before?.down ?? 0) - shift - SLACK);
  const isUpNew = (before?.up ?? 0) === 0;
  const isDownNew = (before?.down ?? 0) === 0;
  return {
    up,
    down,
    upSince: isUpNew ? window.startedAt : (before?.upSince ?? window.startedAt),
    downSince: isDownNew ? window.startedAt : (before?.downSince ?? window.startedAt),
    lastZ: Math.min(CLIP, Math.max(-CLIP, z)),
  };
}

/** How far the window is from the reference, in spreads; 0 where it cannot be said. */
function zOf(reference: readonly RegimeWindow[], window: RegimeWindow, feature: FeatureName): number {
  const value = window.features[feature];
  const values = reference.flatMap((quiet) => quiet.features[feature] ?? []);
  if (value === null || values.length < 2) return 0;
  const { floor, perRequest, perPromptSpread } = SPREADS[feature];
  const perOne = perRequest + perPromptSpread * promptSpread(reference);
  const sampling = perOne / Math.sqrt(window.requestCount);
  // A median of few windows is itself unsure by about spread / sqrt(windows).
  const spread = Math.hypot(robustSpread(values), floor, sampling) * Math.sqrt(1 + 1.5 / values.length);
  return (value - median(values)) / spread;
}

/** The spread of one request's log prompt, by how far the reference's p90 lies above its mean (1.28 sd of a normal). */
function promptSpread(reference: readonly RegimeWindow[]): number {
  const distances = reference.flatMap(({ features: { meanLogPrompt, p90LogPrompt } }) =>
    meanLogPrompt === null || p90LogPrompt === null ? [] : [p90LogPrompt - meanLogPrompt],
  );
  return Math.max(LEAST_PROMPT_SPREAD, distances.length === 0 ? 0 : quantile(distances, 0.8) / 1.28);
}

function autocorrelation(reference: readonly RegimeWindow[], feature: FeatureName): number {
  if (reference.length < LEAST_FOR_WHITENING) return 0;
  const values = reference.flatMap((window) => window.features[feature] ?? []);
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  let product = 0;
  let square = 0;
  values.forEach((value, index) => {
    square += (value - mean) ** 2;
    const next = values[index + 1];
    if (next !== undefined) product += (value - mean) * (next - mean);
  });
  return square > 0 ? Math.min(0.8, Math.max(0, product / square)) : 0;
}
