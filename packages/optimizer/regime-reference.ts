/**
 * What a regime's windows look like: slowly moving means, how far one window lies from them, and how far the mean of eight
 * neighbours does. The latter two say how sure the mean of any number of windows is, whatever correlates them (sessions
 * outlive a window). Used by regime.ts. Plain data; every window costs the same.
 */
import { expectedSpreads, FEATURES, type FeatureValues, leastSpreads } from './regime-features.ts';

export interface Reference {
  readonly windowCount: number;
  readonly sessionCount: number;
  readonly mean: FeatureValues;
  /** Of one window about the mean. */
  readonly variance: readonly number[];
  /** Deviations smoothed so that those of independent windows would scatter as the mean of eight of them... */
  readonly smoothed: readonly number[];
  /** ...and how far they do. */
  readonly smoothedVariance: readonly number[];
}

/** The mean follows the swing of a day within half an hour; scatter is learned more slowly. */
const MEAN_WINDOWS = 120;
const SPREAD_WINDOWS = 480;
const BLOCK = 8;
const SMOOTHING = 2 / (BLOCK + 1);
/** What was expected of one window, and of eight, weighs as much as so many windows. */
const EXPECTED_WEIGHT = 8;
const EXPECTED_BLOCK_WEIGHT = 30;
const EXPECTED_DECAY = 0.3;
const LEAST_DECAY = 0.1;
/** A robust mean, once there is a spread to judge by. */
const LEAST_FOR_CLIPPING = 30;
const MOST_DEVIATION = 4;

export const NO_REFERENCE: Reference = {
  windowCount: 0,
  sessionCount: 0,
  mean: FEATURES.map(() => null),
  variance: FEATURES.map(() => 0),
  smoothed: FEATURES.map(() => 0),
  smoothedVariance: FEATURES.map(() => 0),
};

export function learnWindow(reference: Reference, values: FeatureValues, sessionCount: number): Reference {
  const windowCount = reference.windowCount + 1;
  const toMean = 1 / Math.min(windowCount, MEAN_WINDOWS);
  const toSpread = 1 / Math.min(windowCount, SPREAD_WINDOWS);
  const least = leastSpreads(Math.max(1, reference.sessionCount));
  const deviation = values.map((value, index) => {
    const mean = reference.mean[index] ?? null;
    if (value === null || mean === null) return 0;
    if (windowCount <= LEAST_FOR_CLIPPING) return value - mean;
    const most = MOST_DEVIATION * Math.max(least[index] ?? 0, Math.sqrt(reference.variance[index] ?? 0));
    return Math.min(most, Math.max(-most, value - mean));
  });
  const smoothed = reference.smoothed.map(
    (before, index) => before + SMOOTHING * ((deviation[index] ?? 0) - before),
  );
  const towards = (before: readonly number[], now: readonly number[]): number[] =>
    before.map((variance, index) => variance + toSpread * ((now[index] ?? 0) ** 2 - variance));
  return {
    windowCount,
    sessionCount: reference.sessionCount + toMean * (sessionCount - reference.sessionCount),
    mean: values.map((value, index) => {
      const mean = reference.mean[index] ?? null;
      return mean === null ? value : mean + toMean * (deviation[index] ?? 0);
    }),
    variance: towards(reference.variance, deviation),
    smoothed,
    smoothedVariance: towards(reference.smoothedVariance, smoothed),
  };
}

/** The variance of the mean of `count` neighbouring windows about the reference's mean, which is itself unsure. */
export function varianceOfMeans(reference: Reference): (feature: number, count: number) => number {
  const { windowCount } = reference;
  const sessionCount = Math.max(1, reference.sessionCount);
  const expected = expectedSpreads(reference.mean, sessionCount);
  const least = leastSpreads(sessionCount);
  const blend = (prior: number, weight: number, learned: number): number =>
    (weight * prior + windowCount * learned) / (weight + windowCount);
  const scatter = FEATURES.map((_, index) => {
    const learned = blend((expected[index] ?? 0) ** 2, EXPECTED_WEIGHT, reference.variance[index] ?? 0);
    const ofOne = Math.max((least[index] ?? 0) ** 2, learned);
    const learnedBlock = Math.max(reference.smoothedVariance[index] ?? 0, ofOne / BLOCK);
    const ofBlock = blend(ofOne * BLOCK ** -EXPECTED_DECAY, EXPECTED_BLOCK_WEIGHT, learnedBlock);
    const decay = Math.log(ofOne / ofBlock) / Math.log(BLOCK);
    return { ofOne, decay: Math.min(1, Math.max(LEAST_DECAY, decay)) };
  });
  const ofMean = (feature: number, count: number): number => {
    const { ofOne = 0, decay = 1 } = scatter[feature] ?? {};
    if (count <= BLOCK) return ofOne * count ** -decay;
    // Correlation ends: further windows add more than those before them.
    return ofOne * BLOCK ** -decay * (count / BLOCK) ** (-(1 + decay) / 2);
  };
  // An exponentially weighted mean is as sure as the plain one of twice its span.
  const known = Math.min(windowCount, 2 * MEAN_WINDOWS);
  return (feature, count) => ofMean(feature, count) + ofMean(feature, known);
}
