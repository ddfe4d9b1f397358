/** Order statistics over plain lists of numbers. Used by every fit, replay and verdict here. Empty lists yield NaN. */

/** The `share` quantile, 0..1, linear between neighbours. */
export function quantile(values: readonly number[], share: number): number {
  const sorted = Float64Array.from(values).sort();
  if (sorted.length === 0) return Number.NaN;
  const place = Math.min(1, Math.max(0, share)) * (sorted.length - 1);
  const below = sorted[Math.floor(place)] ?? Number.NaN;
  const above = sorted[Math.ceil(place)] ?? Number.NaN;
  return below + (above - below) * (place - Math.floor(place));
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
