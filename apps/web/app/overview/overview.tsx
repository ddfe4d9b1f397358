'use client';
/**
 * The page kept open all day: the figures of now, what needs a decision, then every measure over one time axis with
 * regimes behind. Owns which questions are asked; the charts only draw.
 */
import { ArrowRight } from 'lucide-react';
import Link from 'next/link';
import { formatClock } from '../../format.ts';
import { STALE_AFTER_MS, usePolicy, useProposals, useSeries, useSummary } from '../../frame/queries.ts';
import { useTimeRange } from '../../frame/time-range.ts';
import { useNow } from '../../frame/use-now.ts';
import { Teach } from '../teach.tsx';
import { CostPanel } from './cost-panel.tsx';
import { DevicesPanel } from './devices-panel.tsx';
import { Figures } from './figures.tsx';
import styles from './overview.module.css';
import { OverviewCharts } from './overview-charts.tsx';
import { PredictionsPanel } from './predictions-panel.tsx';
import { stateSentence } from './state-sentence.ts';

export function Overview() {
  const range = useTimeRange();
  const now = useNow();
  const summary = useSummary(range);
  const series = useSeries(range);
  const objectives = usePolicy().data?.objectives ?? series.data?.series.objectives ?? null;
  const open = useProposals().data?.filter((proposal) => proposal.state === 'open') ?? [];
  const proposed = open[0];
  const isStale =
    series.isError && now !== null && now - series.dataUpdatedAt > Math.max(STALE_AFTER_MS, 2 * range.pollMs);
  const isStaleSummary = summary.isError && now !== null && now - summary.dataUpdatedAt > STALE_AFTER_MS;
  const hasSteps =
    (summary.data?.lastStepAt ?? null) !== null ||
    (series.data?.series.points ?? []).some((point) => point.requestCount > 0);
  const isNew = summary.data !== undefined && !hasSteps && summary.data.telemetryFault === '';
  return (
    <div className={styles.page}>
      <div className={styles.heading}>
        <h1>Overview</h1>
        <p className={styles.sentence}>{stateSentence(summary.data, objectives, range.figuresName)}</p>
      </div>
      <Figures
        summary={summary.data}
        objectives={objectives}
        rangeName={range.figuresName}
        now={now}
        isStale={isStaleSummary}
      />
      {proposed !== undefined && (
        <Link
          className={styles.callout}
          href={{ pathname: '/proposals', query: { range: range.name, proposal: proposed.proposalId } }}
        >
          <span className={styles.calloutCount}>
            {open.length === 1 ? '1 open proposal' : `${open.length} open proposals`}
          </span>
          <span className={styles.calloutTitle}>{proposed.title}</span>
          <ArrowRight size={15} aria-hidden="true" />
        </Link>
      )}
      {isNew ? (
        <Teach
          title="Nothing has run yet"
          text="Charts fill as soon as requests come in. The demo drives two workloads that want different execution paths."
          command="npx variator replay --demo"
        />
      ) : series.data === undefined ? (
        <Skeleton reason={series.isError ? series.error.message : ''} />
      ) : (
        <div className={styles.charts} data-stale={isStale}>
          {isStale && (
            <p className={styles.staleNote}>
              Charts stand at {formatClock(series.dataUpdatedAt)}: {series.error?.message}
            </p>
          )}
          <OverviewCharts answer={series.data} summary={summary.data} />
        </div>
      )}
      {!isNew && <PredictionsPanel range={range} />}
      {!isNew && <CostPanel range={range} />}
      <DevicesPanel />
    </div>
  );
}

function Skeleton({ reason }: { readonly reason: string }) {
  return (
    <div className={styles.charts}>
      {[styles.wide, '', '', '', ''].map((extra, index) => (
        <div
          // biome-ignore lint/suspicious/noArrayIndexKey: five blocks that never move
          key={index}
          className={`${styles.panel} ${styles.skeleton} ${extra}`}
        >
          {index === 0 && reason !== '' && <p>{reason}</p>}
        </div>
      ))}
    </div>
  );
}
