/**
 * What quiet windows look like: slowly moving means, covariance and autocorrelation of the features, and the distances that
 * follow from them. Used by regime.ts and regime-library.ts. Plain data; every window costs the same.
 */
import { expectedSpreads, FEATURES, SCALES } from './regime-features.ts';

type Values = readonly (number | null)[];

export interface Reference {
  readonly windowCount: number;
  readonly mean: Values;
  /** Of one window about the mean, row by row. */
  readonly covariance: readonly number[];
  /** Of a window with the one before it. */
  readonly lagCovariance: readonly number[];
  readonly lastDeviation: readonly number[];
  readonly requestCount: number;
}

const SIZE = FEATURES.length;
/** The mean follows the swing of a day within half an hour; scatter is learned more slowly. */
const MEAN_WINDOWS = 120;
const SPREAD_WINDOWS = 480;
/** What was expected weighs as much as this many windows. */
const EXPECTED_WEIGHT = 8;
/** Sessions outlive a window; what is learned of it weighs as much as what was expected after so many windows. */
const LEAST_FOR_WHITENING = 30;
const EXPECTED_WHITENING = 0.4;
const MOST_WHITENING = 0.8;
const MOST_DEVIATION = 4;
const SHRUNK = 0.2;

export const NO_REFERENCE: Reference = {
  windowCount: 0,
  mean: FEATURES.map(() => null),
  covariance: Array.from({ length: SIZE * SIZE }, () => 0),
  lagCovariance: FEATURES.map(() => 0),
  lastDeviation: FEATURES.map(() => 0),
  requestCount: 0,
};

export function learnWindow(reference: Reference, values: Values, requestCount: number): Reference {
  const windowCount = reference.windowCount + 1;
  const toMean = 1 / Math.min(windowCount, MEAN_WINDOWS);
  const toSpread = 1 / Math.min(windowCount, SPREAD_WINDOWS);
  const spreads = spreadsOf(reference);
  const deviation = values.map((value, index) => {
    const mean = reference.mean[index] ?? null;
    if (value === null || mean === null) return 0;
    const most = MOST_DEVIATION * (spreads[index] ?? 0);
    return windowCount <= LEAST_FOR_WHITENING ? value - mean : clip(value - mean, most);
  });
  return {
    windowCount,
    mean: values.map((value, index) => {
      const mean = reference.mean[index] ?? null;
      return mean === null ? value : mean + toMean * (deviation[index] ?? 0);
    }),
    covariance: reference.covariance.map((covariance, cell) => {
      const product = (deviation[Math.floor(cell / SIZE)] ?? 0) * (deviation[cell % SIZE] ?? 0);
      return covariance + toSpread * (product - covariance);
    }),
    lagCovariance: reference.lagCovariance.map((covariance, index) => {
      const product = (deviation[index] ?? 0) * (reference.lastDeviation[index] ?? 0);
      return covariance + toSpread * (product - covariance);
    }),
    lastDeviation: deviation,
    requestCount: reference.requestCount + toMean * (requestCount - reference.requestCount),
  };
}

/** One window's standard deviation, feature by feature: learned, expected, and never below the floor. */
export function spreadsOf(reference: Reference): number[] {
  const { windowCount } = reference;
  const expected = expectedSpreads(reference.mean, Math.max(1, reference.requestCount));
  return FEATURES.map((feature, index) => {
    const before = EXPECTED_WEIGHT * (expected[index] ?? 0) ** 2;
    const learned = windowCount * (reference.covariance[index * SIZE + index] ?? 0);
    const variance = (before + learned) / (EXPECTED_WEIGHT + windowCount);
    return Math.max(SCALES[feature].floor, Math.sqrt(variance));
  });
}

export function autocorrelationsOf(reference: Reference): number[] {
  return FEATURES.map((_, index) => {
    const variance = reference.covariance[index * SIZE + index] ?? 0;
    const learned = variance > 0 ? Math.max(0, (reference.lagCovariance[index] ?? 0) / variance) : 0;
    const trust = reference.windowCount / (reference.windowCount + LEAST_FOR_WHITENING);
    return Math.min(MOST_WHITENING, trust * learned + (1 - trust) * EXPECTED_WHITENING);
  });
}

/** How far the values are from the reference, in spreads of a window that is compared with an unsure mean. */
export function distances(reference: Reference, values: Values): number[] {
  const unsure = Math.sqrt(1 + 3 / Math.max(1, Math.min(reference.windowCount, MEAN_WINDOWS)));
  const spreads = spreadsOf(reference);
  return values.map((value, index) => {
    const mean = reference.mean[index] ?? null;
    return value === null || mean === null ? 0 : (value - mean) / ((spreads[index] ?? 1) * unsure);
  });
}

/** zᵀ R⁻¹ z with the reference's correlations, shrunk towards none: the less, the more windows were seen. */
export function mahalanobis(reference: Reference, z: readonly number[]): number {
  const { covariance, windowCount } = reference;
  const trust = ((1 - SHRUNK) * windowCount) / (windowCount + LEAST_FOR_WHITENING);
  const correlation = covariance.map((product, cell) => {
    const row = Math.floor(cell / SIZE);
    const column = cell % SIZE;
    if (row === column) return 1;
    const scale = Math.sqrt((covariance[row * SIZE + row] ?? 0) * (covariance[column * SIZE + column] ?? 0));
    return scale > 0 ? (trust * product) / scale : 0;
  });
  const solved = solve(correlation, z);
  return z.reduce((sum, value, index) => sum + value * (solved[index] ?? 0), 0);
}

/** Gauss's elimination; the matrix is positive definite, so no pivot is searched. */
function solve(matrix: readonly number[], right: readonly number[]): number[] {
  const a = Float64Array.from(matrix);
  const x = [...right];
  for (let pivot = 0; pivot < SIZE; pivot += 1) {
    for (let row = pivot + 1; row < SIZE; row += 1) {
      const factor = (a[row * SIZE + pivot] ?? 0) / (a[pivot * SIZE + pivot] ?? 1);
      for (let column = pivot; column < SIZE; column += 1) {
        a[row * SIZE + column] = (a[row * SIZE + column] ?? 0) - factor * (a[pivot * SIZE + column] ?? 0);
      }
      x[row] = (x[row] ?? 0) - factor * (x[pivot] ?? 0);
    }
  }
  for (let row = SIZE - 1; row >= 0; row -= 1) {
    let rest = x[row] ?? 0;
    for (let column = row + 1; column < SIZE; column += 1) {
      rest -= (a[row * SIZE + column] ?? 0) * (x[column] ?? 0);
    }
    x[row] = rest / (a[row * SIZE + row] ?? 1);
  }
  return x;
}

export const clip = (value: number, most: number): number => Math.min(most, Math.max(-most, value));
