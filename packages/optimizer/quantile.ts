/** Order statistics over plain lists of numbers. Used by every fit, replay and verdict here. Empty lists yield NaN. */

/** The `share` quantile, 0..1, linear between neighbours. */
export function quantile(values: ArrayLike<number>, share: number): number {
  const sorted = Float64Array.from(values).sort();
  if (sorted.length === 0) return Number.NaN;
  const place = Math.min(1, Math.max(0, share)) * (sorted.length - 1);
  const below = sorted[Math.floor(place)] ?? Number.NaN;
  const above = sorted[Math.ceil(place)] ?? Number.NaN;
  return below + (above - below) * (place - Math.floor(place));
}

/** A sample of every so-manyth value says roughly where the upper end begins. */
const STRIDE = 16;
const LEAST_SAMPLED = 1024;

/** The same for shares near 1 of long lists: only what lies above a guess from a sample is sorted, all where it was too high. */
export function upperQuantile(values: Float64Array, share: number): number {
  const count = values.length;
  const below = Math.floor(share * (count - 1));
  const needed = count - below;
  if (count < LEAST_SAMPLED || 4 * needed > count) return quantile(values, share);
  const sample = new Float64Array(Math.ceil(count / STRIDE));
  for (let index = 0; index < sample.length; index += 1) sample[index] = values[STRIDE * index] ?? 0;
  sample.sort();
  const guess = sample[Math.floor((1 - (2 * needed) / count) * (sample.length - 1))] ?? 0;
  const upper = values.filter((value) => value >= guess);
  if (upper.length < needed) return quantile(values, share);
  upper.sort();
  const first = upper[below - (count - upper.length)] ?? Number.NaN;
  const second = upper[Math.ceil(share * (count - 1)) - (count - upper.length)] ?? Number.NaN;
  return first + (second - first) * (share * (count - 1) - below);
}

export const median = (values: readonly number[]): number => quantile(values, 0.5);

/** A robust standard deviation: 1.4826 times the median absolute deviation. */
export function robustSpread(values: readonly number[]): number {
  const middle = median(values);
  return 1.4826 * median(values.map((value) => Math.abs(value - middle)));
}

/** The value below which `share` of the weight lies; NaN without weight. */
export function weightedQuantile(
  points: readonly { readonly value: number; readonly weight: number }[],
  share: number,
): number {
  const sorted = points.filter((point) => point.weight > 0).sort((a, b) => a.value - b.value);
  const total = sorted.reduce((sum, point) => sum + point.weight, 0);
  let reached = 0;
  for (const point of sorted) {
    reached += point.weight;
    if (reached >= share * total) return point.value;
  }
  return sorted.at(-1)?.value ?? Number.NaN;
}
