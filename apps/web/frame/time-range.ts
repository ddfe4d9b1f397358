/**
 * The time ranges of the dashboard and what follows from one: bucket width, poll interval, span of the figures. The
 * range lives in the URL; read by the top bar and by every page with charts.
 */
import { useSearchParams } from 'next/navigation';

export interface TimeRange {
  readonly name: string;
  readonly durationMs: number;
  readonly bucketMs: number;
  readonly pollMs: number;
  /** The span over which the figures above the charts are taken. */
  readonly figuresMs: number;
  readonly figuresName: string;
}

const minuteMs = 60_000;
const hourMs = 60 * minuteMs;
const dayMs = 24 * hourMs;

const range = (
  name: string,
  durationMs: number,
  bucketMs: number,
  pollMs: number,
  figuresMs: number,
  figuresName: string,
): TimeRange => ({ name, durationMs, bucketMs, pollMs, figuresMs, figuresName });

const fifteenMinutes = range('15m', 15 * minuteMs, 10_000, 1000, minuteMs, 'last minute');

export const timeRanges: readonly TimeRange[] = [
  range('5m', 5 * minuteMs, 5000, 1000, minuteMs, 'last minute'),
  fifteenMinutes,
  range('1h', hourMs, 30_000, 5000, hourMs, 'last hour'),
  range('6h', 6 * hourMs, 2 * minuteMs, 15_000, 6 * hourMs, 'last 6 hours'),
  range('24h', dayMs, 5 * minuteMs, 30_000, dayMs, 'last 24 hours'),
  // Buckets of whole hours: beyond 48 h they are summed from the store's hours.
  range('7d', 7 * dayMs, hourMs, minuteMs, 7 * dayMs, 'last 7 days'),
  range('30d', 30 * dayMs, 3 * hourMs, minuteMs, 30 * dayMs, 'last 30 days'),
  range('90d', 90 * dayMs, 6 * hourMs, minuteMs, 90 * dayMs, 'last 90 days'),
];

export function timeRangeNamed(name: string | null): TimeRange {
  return timeRanges.find((candidate) => candidate.name === name) ?? fifteenMinutes;
}

export function useTimeRange(): TimeRange {
  return timeRangeNamed(useSearchParams().get('range'));
}
