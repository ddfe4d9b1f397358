/**
 * Where the figures of a span come from: the rows themselves, or their sums by hour (migration 0005). Rows are exact at
 * both ends but many, and steps keep theirs for 30 days only; hours are few, and there for 90 days and more. The one place
 * that chooses; asked by every question that may reach far back. Pure.
 */
import type { Span } from './measures.ts';

export type Source = 'rows' | 'hours';

export interface SourcedSpan extends Span {
  readonly source: Source;
}

export const HOUR_MS = 3_600_000;
/** Longer spans are counted in whole hours. */
const MOST_ROWS_MS = 48 * HOUR_MS;

/**
 * Beyond 48 h a span is that of the hours (UTC) it touches, up to now: an hour's sum cannot be cut, and of the hour that is
 * still running there is nothing but what has been. `bucketMs`: of a series, whose buckets must then be whole hours too.
 */
export function sourceOf({ fromMs, toMs }: Span, now: number, bucketMs = HOUR_MS): SourcedSpan {
  if (toMs - fromMs <= MOST_ROWS_MS || bucketMs % HOUR_MS !== 0) return { source: 'rows', fromMs, toMs };
  return {
    source: 'hours',
    fromMs: Math.floor(fromMs / HOUR_MS) * HOUR_MS,
    toMs: Math.min(Math.ceil(toMs / HOUR_MS) * HOUR_MS, Math.max(toMs, now)),
  };
}
