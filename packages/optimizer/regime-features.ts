/**
 * The features of a workload window and what is known of them before any was seen: how far they scatter by sampling, and
 * how large a shift matters at all. Used by the regime detector's files. Plain data.
 */
export const FEATURES = [
  'meanLogPrompt',
  'p90LogPrompt',
  'meanLog1pUncached',
  'meanLogOutput',
  'logArrivalRate',
  'logSessionRate',
  'logCv2',
  'meanHitShare',
] as const;
export type FeatureName = (typeof FEATURES)[number];
/** Natural logarithms; null where the window had too few requests for it. */
export type RegimeFeatures = Readonly<Record<FeatureName, number | null>>;
/** The same in the order of FEATURES. */
export type FeatureValues = readonly (number | null)[];

export interface RegimeWindow {
  readonly startedAt: number;
  readonly windowMs: number;
  readonly requestCount: number;
  /** Sessions that had a request in it; a request without a session is one of its own. */
  readonly sessionCount: number;
  readonly features: RegimeFeatures;
}

interface FeatureScale {
  /** A window's spread is never taken to be smaller. */
  readonly floor: number;
  /** Nor smaller than this / sqrt(sessions): what counts of independent arrivals scatter. */
  readonly floorPerSession: number;
  /** Before windows were compared: at least `spread`, and this / sqrt(sessions)... */
  readonly spread: number;
  readonly perSession: number;
  /** ...plus this many spreads of a request's log prompt / sqrt(sessions). */
  readonly perPromptSpread: number;
  /** A smaller shift is no other regime, however sure it is. Below the shifts of the gates, above the swing of an hour. */
  readonly material: number;
}

const lengths = { floor: 0.05, floorPerSession: 0, spread: 0.1, perSession: 0, perPromptSpread: 1.2 };
const arrivals = { floor: 0.1, floorPerSession: 0.7, spread: 0.15, perSession: 1, perPromptSpread: 0 };
export const SCALES: Readonly<Record<FeatureName, FeatureScale>> = {
  meanLogPrompt: { ...lengths, material: 0.25 },
  p90LogPrompt: { ...lengths, floor: 0.1, spread: 0.2, perPromptSpread: 3, material: 0.5 },
  meanLog1pUncached: { ...lengths, spread: 0.15, material: 0.25 },
  meanLogOutput: { ...lengths, perSession: 0.7, perPromptSpread: 0, material: 0.25 },
  // Requests of sessions that last answer to how fast we are: only a large shift of them counts by itself.
  logArrivalRate: { ...arrivals, material: 0.7 },
  logSessionRate: { ...arrivals, material: 0.45 },
  logCv2: { ...arrivals, floor: 0.3, floorPerSession: 0, spread: 0.5, perSession: 2, material: 1.2 },
  meanHitShare: {
    ...lengths,
    floor: 0.02,
    spread: 0.05,
    perSession: 0.3,
    perPromptSpread: 0,
    material: 0.15,
  },
};
const LEAST_PROMPT_SPREAD = 0.3;

/** The spread of one request's log prompt, by how far p90 lies above the mean (1.28 sd of a normal). */
const promptSpread = (mean: number | null, p90: number | null): number =>
  Math.max(LEAST_PROMPT_SPREAD, mean === null || p90 === null ? 0 : (p90 - mean) / 1.28);

/** One window's standard deviation, feature by feature, before any was compared with another. */
export function expectedSpreads(mean: FeatureValues, sessionCount: number): number[] {
  const perPrompt = promptSpread(mean[0] ?? null, mean[1] ?? null);
  return FEATURES.map((feature) => {
    const { spread, perSession, perPromptSpread } = SCALES[feature];
    return Math.hypot(spread, (perSession + perPromptSpread * perPrompt) / Math.sqrt(sessionCount));
  });
}

/** What one window's standard deviation is at least. */
export const leastSpreads = (sessionCount: number): number[] =>
  FEATURES.map((feature) =>
    Math.hypot(SCALES[feature].floor, SCALES[feature].floorPerSession / Math.sqrt(sessionCount)),
  );

export const valuesOf = (features: RegimeFeatures): FeatureValues =>
  FEATURES.map((feature) => features[feature]);

export function featuresOf(values: FeatureValues): RegimeFeatures {
  const entries = FEATURES.map((feature, index) => [feature, values[index] ?? null]);
  return Object.fromEntries(entries) as Record<FeatureName, number | null>;
}
