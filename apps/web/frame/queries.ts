/**
 * The questions more than one part of the page asks, each with its own pace. TanStack Query shares one answer among
 * all who ask; polling pauses while the page is hidden.
 */
import { keepPreviousData, useQuery } from '@tanstack/react-query';
import {
  type CostGrouping,
  type CostLedger,
  client,
  type FitPredictions,
  type KernelsKey,
  type OverviewSeries,
  trpc,
} from '../api.ts';
import type { TimeRange } from './time-range.ts';

export const STALE_AFTER_MS = 5000;
/** Well within that, however rarely the range's charts are asked for. */
const MOST_SUMMARY_POLL_MS = 3000;

export function useSummary(range: TimeRange) {
  return useQuery(
    trpc.overview.summary.queryOptions(
      { windowMs: range.figuresMs },
      {
        refetchInterval: Math.min(range.pollMs, MOST_SUMMARY_POLL_MS),
        placeholderData: keepPreviousData,
      },
    ),
  );
}

export interface SeriesAnswer {
  readonly fromMs: number;
  readonly toMs: number;
  readonly fetchedAt: number;
  readonly series: OverviewSeries;
}

/** The key is the range, not its ends, so that each poll replaces the one before it. */
export function useSeries(range: TimeRange) {
  return useQuery({
    queryKey: ['overview.series', range.name],
    queryFn: async ({ signal }): Promise<SeriesAnswer> => {
      const fetchedAt = Date.now();
      const toMs = Math.ceil(fetchedAt / range.bucketMs) * range.bucketMs;
      const fromMs = toMs - range.durationMs;
      // Asked up to now, not to the bucket's end, so that the filling bucket's rates are over the time that has passed.
      const input = { fromMs, toMs: fetchedAt, bucketMs: range.bucketMs };
      return { fromMs, toMs, fetchedAt, series: await client.overview.series.query(input, { signal }) };
    },
    refetchInterval: range.pollMs,
    placeholderData: keepPreviousData,
  });
}

/** What moves slowly is asked for no more often than every few seconds, however short the range. */
const LEAST_SLOW_POLL_MS = 5000;

export function useCostLedger(range: TimeRange, by: CostGrouping) {
  return useQuery({
    queryKey: ['costs.ledger', range.name, by],
    queryFn: ({ signal }): Promise<CostLedger> => {
      const toMs = Date.now();
      return client.costs.ledger.query({ fromMs: toMs - range.durationMs, toMs, by }, { signal });
    },
    refetchInterval: Math.max(range.pollMs, LEAST_SLOW_POLL_MS),
    placeholderData: keepPreviousData,
  });
}

export function useWorkers() {
  return useQuery(
    trpc.workers.list.queryOptions(undefined, {
      refetchInterval: LEAST_SLOW_POLL_MS,
      placeholderData: keepPreviousData,
    }),
  );
}

/** `kernels` null: those that are live. */
export function useFitPredictions(range: TimeRange, kernels: KernelsKey | null) {
  return useQuery({
    queryKey: ['fits.predictions', range.name, kernels],
    queryFn: ({ signal }): Promise<FitPredictions> => {
      const toMs = Date.now();
      return client.fits.predictions.query({ fromMs: toMs - range.durationMs, toMs, kernels }, { signal });
    },
    refetchInterval: Math.max(range.pollMs, LEAST_SLOW_POLL_MS),
    placeholderData: keepPreviousData,
  });
}

export function useProposals() {
  return useQuery(trpc.proposals.list.queryOptions({ limit: 50 }, { refetchInterval: 1000 }));
}

export function useRollouts() {
  return useQuery(trpc.rollouts.list.queryOptions({ limit: 50 }, { refetchInterval: 1000 }));
}

export function useLedger() {
  return useQuery(trpc.ledger.list.queryOptions({ limit: 100 }, { refetchInterval: 1000 }));
}

export function useKillSwitch() {
  return useQuery(trpc.rollouts.killSwitch.queryOptions(undefined, { refetchInterval: 2000 }));
}

export function usePolicy() {
  return useQuery(trpc.objectives.get.queryOptions(undefined, { refetchInterval: 10_000 }));
}
