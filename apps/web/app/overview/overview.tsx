'use client';
/**
 * The page kept open all day: the figures of now, what needs a decision, then every measure over one time axis with
 * regimes behind. Owns which questions are asked; the charts only draw.
 */
import { ArrowRight } from 'lucide-react';
import Link from 'next/link';
import { useMemo } from 'react';
import { toRows } from '../../charts/rows.ts';
import { TimeChart } from '../../charts/time-chart.tsx';
import { TimelineStrip } from '../../charts/timeline-strip.tsx';
import { colourOf } from '../../colours.ts';
import {
  formatClock,
  formatId,
  formatMs,
  formatShare,
  formatTokensPerSecond,
  formatUsd,
} from '../../format.ts';
import {
  type SeriesAnswer,
  STALE_AFTER_MS,
  usePolicy,
  useProposals,
  useSeries,
  useSummary,
} from '../../frame/queries.ts';
import { useTimeRange } from '../../frame/time-range.ts';
import { useNow } from '../../frame/use-now.ts';
import { settingValue } from '../../labels.ts';
import { Teach } from '../teach.tsx';
import { Figures } from './figures.tsx';
import styles from './overview.module.css';
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
          <Charts answer={series.data} livePath={summary.data} />
        </div>
      )}
    </div>
  );
}

const keys = [
  'outputTokensPerSecond',
  'inputTokensPerSecond',
  'ttftP50Ms',
  'ttftP95Ms',
  'ttftP99Ms',
  'itlP50Ms',
  'itlP95Ms',
  'itlP99Ms',
  'costUsdPerMillionTokens',
  'sloAttainment',
] as const;
type Key = (typeof keys)[number];

const throughput = [
  { key: 'outputTokensPerSecond', label: 'out', colour: colourOf.outputTokens, stroke: 'solid' },
  { key: 'inputTokensPerSecond', label: 'in', colour: colourOf.inputTokens, stroke: 'thin' },
] as const;
const percentiles = (p50: Key, p95: Key, p99: Key, colour: string) =>
  [
    { key: p50, label: 'p50', colour, stroke: 'solid' },
    { key: p95, label: 'p95', colour, stroke: 'thin' },
    { key: p99, label: 'p99', colour, stroke: 'dotted' },
  ] as const;
const ttft = percentiles('ttftP50Ms', 'ttftP95Ms', 'ttftP99Ms', colourOf.ttft);
const itl = percentiles('itlP50Ms', 'itlP95Ms', 'itlP99Ms', colourOf.itl);
const cost = [
  { key: 'costUsdPerMillionTokens', label: 'cost', colour: colourOf.cost, stroke: 'solid' },
] as const;
const attainment = [
  { key: 'sloAttainment', label: 'attained', colour: colourOf.sloAttainment, stroke: 'solid' },
] as const;

function Charts({
  answer,
  livePath,
}: {
  readonly answer: SeriesAnswer;
  readonly livePath: ReturnType<typeof useSummary>['data'];
}) {
  const { fromMs, toMs, fetchedAt, series } = answer;
  const rows = useMemo(() => {
    const rowsOf = (picked: readonly Key[]) =>
      toRows(series.points, picked, { fromMs, toMs, bucketMs: series.bucketMs, now: fetchedAt });
    return {
      throughput: rowsOf(['outputTokensPerSecond', 'inputTokensPerSecond']),
      ttft: rowsOf(['ttftP50Ms', 'ttftP95Ms', 'ttftP99Ms']),
      itl: rowsOf(['itlP50Ms', 'itlP95Ms', 'itlP99Ms']),
      cost: rowsOf(['costUsdPerMillionTokens']),
      attainment: rowsOf(['sloAttainment']),
    };
  }, [series, fromMs, toMs, fetchedAt]);
  const base = { fromMs, toMs, regimes: series.regimes, rollouts: series.rollouts };
  const path = livePath?.livePath ?? null;
  return (
    <>
      <section className={`${styles.panel} ${styles.wide}`} aria-label="Regimes, paths and throughput">
        <TimelineStrip fromMs={fromMs} toMs={toMs} regimes={series.regimes} paths={series.paths} />
        {path !== null && livePath !== undefined && (
          <dl className={styles.livePath}>
            <div>
              <dt>live path</dt>
              <dd>
                <code>{formatId(livePath.livePathId)}</code>
              </dd>
            </div>
            <div>
              <dt>linear layers</dt>
              <dd>{settingValue(path.linear)}</dd>
            </div>
            <div>
              <dt>attention</dt>
              <dd>{settingValue(path.attention)}</dd>
            </div>
            <div>
              <dt>threads</dt>
              <dd>{path.threadCount}</dd>
            </div>
            <div>
              <dt>token budget</dt>
              <dd>{path.tokenBudget}</dd>
            </div>
            <div>
              <dt>running batch</dt>
              <dd>{path.maxRunningCount}</dd>
            </div>
          </dl>
        )}
        <TimeChart
          {...base}
          title="Throughput"
          unit="tokens/s"
          rows={rows.throughput}
          series={throughput}
          format={formatTokensPerSecond}
          scale="linear"
        />
      </section>
      <section className={styles.panel}>
        <TimeChart
          {...base}
          title="Time to first token"
          unit="ms"
          rows={rows.ttft}
          series={ttft}
          format={formatMs}
          objective={{
            value: series.objectives.ttftMs,
            label: `objective ${formatMs(series.objectives.ttftMs)}`,
          }}
          scale="linear or log"
        />
      </section>
      <section className={styles.panel}>
        <TimeChart
          {...base}
          title="Inter-token latency"
          unit="ms"
          rows={rows.itl}
          series={itl}
          format={formatMs}
          objective={{
            value: series.objectives.itlMs,
            label: `objective ${formatMs(series.objectives.itlMs)}`,
          }}
          scale="linear or log"
        />
      </section>
      <section className={styles.panel}>
        <TimeChart
          {...base}
          title="Cost"
          unit="$ per million tokens"
          rows={rows.cost}
          series={cost}
          format={formatUsd}
          scale="linear"
        />
      </section>
      <section className={styles.panel}>
        <TimeChart
          {...base}
          title="SLO attainment"
          unit="% of requests"
          rows={rows.attainment}
          series={attainment}
          format={formatShare}
          most={1}
          axisFactor={100}
          scale="linear"
        />
      </section>
    </>
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
