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

interface FeatureScale {
  /** A spread is never taken to be smaller. */
  readonly floor: number;
  /** Sampling error of a window is this / sqrt(requests)... */
  readonly perRequest: number;
  /** ...plus this many spreads of a request's log prompt / sqrt(requests). */
  readonly perPromptSpread: number;
  /** A smaller shift is no other regime, however sure it is. Below the shifts of the gates, above the swing of an hour. */
  readonly material: number;
}

export const SCALES: Readonly<Record<FeatureName, FeatureScale>> = {
  meanLogPrompt: { floor: 0.1, perRequest: 0, perPromptSpread: 1.2, material: 0.25 },
  p90LogPrompt: { floor: 0.2, perRequest: 0, perPromptSpread: 3, material: 0.5 },
  meanLog1pUncached: { floor: 0.15, perRequest: 0, perPromptSpread: 1.2, material: 0.25 },
  meanLogOutput: { floor: 0.1, perRequest: 0.7, perPromptSpread: 0, material: 0.25 },
  logArrivalRate: { floor: 0.15, perRequest: 1, perPromptSpread: 0, material: 0.38 },
  logCv2: { floor: 0.5, perRequest: 2, perPromptSpread: 0, material: 1.2 },
  meanHitShare: { floor: 0.05, perRequest: 0.3, perPromptSpread: 0, material: 0.15 },
};
const LEAST_PROMPT_SPREAD = 0.3;

/** The spread of one request's log prompt, by how far p90 lies above the mean (1.28 sd of a normal). */
const promptSpread = (mean: number | null, p90: number | null): number =>
  Math.max(LEAST_PROMPT_SPREAD, mean === null || p90 === null ? 0 : (p90 - mean) / 1.28);

/** What the spread of each feature is expected to be before any window was compared with another. */
export function expectedSpreads(mean: readonly (number | null)[], requestCount: number): number[] {
  const perPrompt = promptSpread(mean[0] ?? null, mean[1] ?? null);
  return FEATURES.map((feature) => {
    const { floor, perRequest, perPromptSpread } = SCALES[feature];
    return Math.hypot(floor, (perRequest + perPromptSpread * perPrompt) / Math.sqrt(requestCount));
  });
}

export const valuesOf = (features: RegimeFeatures): (number | null)[] =>
  FEATURES.map((feature) => features[feature]);

export function featuresOf(values: readonly (number | null)[]): RegimeFeatures {
  const entries = FEATURES.map((feature, index) => [feature, values[index] ?? null]);
  return Object.fromEntries(entries) as Record<FeatureName, number | null>;
}
