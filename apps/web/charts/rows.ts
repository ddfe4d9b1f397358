/**
 * Points as the charts draw them: every bucket of the range has a row, what was not measured is null, and the bucket
 * that is still filling is kept apart so that it can be drawn lighter. Pure; called by pages before a chart.
 */
export interface ChartRow {
  readonly at: number;
  /** Measured values by series key, the filling bucket included. */
  readonly values: Readonly<Record<string, number | null>>;
  /** What the full line draws: null in the filling bucket. */
  readonly full: Readonly<Record<string, number | null>>;
  /** What the lighter tail draws: the last full bucket and the filling one. */
  readonly tail: Readonly<Record<string, number | null>>;
  /** Series whose value stands alone between two gaps, so that a line would not show it. */
  readonly alone: readonly string[];
}

export interface RowsRange {
  readonly fromMs: number;
  readonly toMs: number;
  readonly bucketMs: number;
  readonly now: number;
}

export function toRows<Key extends string>(
  points: readonly (Readonly<Record<Key, number | null>> & { readonly at: number })[],
  keys: readonly Key[],
  { fromMs, toMs, bucketMs, now }: RowsRange,
): ChartRow[] {
  const bucketOf = (at: number): number => Math.floor(at / bucketMs);
  const byBucket = new Map(points.map((point) => [bucketOf(point.at), point]));
  const first = bucketOf(fromMs);
  const count = Math.max(0, Math.min(1000, bucketOf(toMs - 1) - first + 1));
  const values = Array.from({ length: count }, (_, index) => {
    const point = byBucket.get(first + index);
    return Object.fromEntries(keys.map((key) => [key, point?.[key] ?? null]));
  });
  const isFilling = (index: number): boolean => (first + index + 1) * bucketMs > now;
  const fillingIndex = values.findIndex((_, index) => isFilling(index));
  const pick = (index: number, isIn: boolean): Record<string, number | null> =>
    Object.fromEntries(keys.map((key) => [key, isIn ? (values[index]?.[key] ?? null) : null]));
  return values.map((row, index) => ({
    at: (first + index) * bucketMs,
    values: row,
    full: pick(index, fillingIndex === -1 || index < fillingIndex),
    tail: pick(index, fillingIndex !== -1 && (index === fillingIndex || index === fillingIndex - 1)),
    alone: keys.filter(
      (key) =>
        row[key] !== null &&
        (values[index - 1]?.[key] ?? null) === null &&
        (values[index + 1]?.[key] ?? null) === null,
    ),
  }));
}

/** The newest row in which any of the series was measured, full buckets first. */
export function latestRow(rows: readonly ChartRow[]): ChartRow | undefined {
  const isMeasured = (values: Readonly<Record<string, number | null>>): boolean =>
    Object.values(values).some((value) => value !== null);
  return rows.findLast((row) => isMeasured(row.full)) ?? rows.findLast((row) => isMeasured(row.values));
}

/** From the first row to the last. */
export function lengthMs(rows: readonly ChartRow[]): number {
  return (rows.at(-1)?.at ?? 0) - (rows[0]?.at ?? 0);
}

/** Least and most of the measured values, or null where there are none. */
export function spanOf(rows: readonly ChartRow[]): { readonly least: number; readonly most: number } | null {
  let least = Number.POSITIVE_INFINITY;
  let most = Number.NEGATIVE_INFINITY;
  for (const row of rows) {
    for (const value of Object.values(row.values)) {
      if (value === null) continue;
      least = Math.min(least, value);
      most = Math.max(most, value);
    }
  }
  return most === Number.NEGATIVE_INFINITY ? null : { least, most };
}

/** One sentence for those who do not see the picture. */
export function summariseRows(
  title: string,
  rows: readonly ChartRow[],
  series: readonly { readonly key: string; readonly label: string }[],
  format: (value: number) => string,
): string {
  const gapCount = rows.filter((row) => Object.values(row.values).every((value) => value === null)).length;
  const parts = series.flatMap(({ key, label }) => {
    const measured = rows.flatMap((row) => row.values[key] ?? []);
    const last = measured.at(-1);
    if (last === undefined) return [];
    return [
      `${label} is ${format(last)}, between ${format(Math.min(...measured))} and ${format(Math.max(...measured))}`,
    ];
  });
  if (parts.length === 0) return `${title}: nothing was measured in this range.`;
  return `${title}: ${parts.join('; ')}; ${gapCount} of ${rows.length} intervals without data.`;
}
