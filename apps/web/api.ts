/**
 * The typed door to the gateway, as the browser sees it: one tRPC client through this server's proxy, one query cache,
 * and the names of what comes back. Used by pages; charts never import more than types from here.
 */
import { QueryClient } from '@tanstack/react-query';
import { createTRPCClient, httpLink } from '@trpc/client';
import { createTRPCOptionsProxy, type inferOutput } from '@trpc/tanstack-react-query';
import type { AppRouter } from '@variator/engine/api';

export const queryClient = new QueryClient({
  defaultOptions: {
    // The gateway is on this machine: a browser without a network still reaches it, and the next poll is the retry.
    queries: { networkMode: 'always', retry: false, refetchOnWindowFocus: true, gcTime: 60_000 },
    mutations: { networkMode: 'always', retry: false },
  },
});

// One request a question: a slow ClickHouse must not hold back the state of a rollout.
export const client = createTRPCClient<AppRouter>({ links: [httpLink({ url: '/trpc' })] });

export const trpc = createTRPCOptionsProxy<AppRouter>({ client, queryClient });

export type OverviewSummary = inferOutput<typeof trpc.overview.summary>;
export type OverviewSeries = inferOutput<typeof trpc.overview.series>;
export type RegimeMark = OverviewSeries['regimes'][number];
export type PathSpan = OverviewSeries['paths'][number];
export type RolloutMark = OverviewSeries['rollouts'][number];
export type CostLedger = inferOutput<typeof trpc.costs.ledger>;
export type CostGrouping = CostLedger['by'];
export type FitPredictions = inferOutput<typeof trpc.fits.predictions>;
export type KernelsKey = NonNullable<FitPredictions['shown']>;
export type Policy = inferOutput<typeof trpc.objectives.get>;
export type Proposal = inferOutput<typeof trpc.proposals.list>[number];
export type RolloutView = inferOutput<typeof trpc.rollouts.list>[number];
export type LedgerEntry = inferOutput<typeof trpc.ledger.list>[number];
export type LedgerMetric = LedgerEntry['rows'][number];
export type MetricName = LedgerMetric['metric'];
export type PathSetting = Proposal['changes'][number]['setting'];
export type RolloutState = RolloutView['state'];
export type Verdict = LedgerEntry['verdict'];
