'use client';
/**
 * The overview's charts over one time axis: throughput under regimes and paths, then both latencies, cost and SLO
 * attainment. Chooses what each plot draws; the plots themselves are in charts/, and nothing is fetched here.
 */
import { useMemo } from 'react';
import type { OverviewSummary } from '../../api.ts';
import { toRows } from '../../charts/rows.ts';
import { TimeChart } from '../../charts/time-chart.tsx';
import { TimelineStrip } from '../../charts/timeline-strip.tsx';
import { colourOf } from '../../colours.ts';
import { formatId, formatMs, formatShare, formatTokensPerSecond, formatUsd } from '../../format.ts';
import type { SeriesAnswer } from '../../frame/queries.ts';
import { settingName, settingValue } from '../../labels.ts';
import styles from './overview.module.css';

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

export function OverviewCharts(props: {
  readonly answer: SeriesAnswer;
  readonly summary: OverviewSummary | undefined;
}) {
  const { answer, summary } = props;
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
  return (
    <>
      <section className={`${styles.panel} ${styles.wide}`} aria-label="Regimes, paths and throughput">
        <TimelineStrip fromMs={fromMs} toMs={toMs} regimes={series.regimes} paths={series.paths} />
        <LivePath summary={summary} />
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

const shownSettings = [
  ...(['linear', 'attention', 'threadCount'] as const),
  ...(['tokenBudget', 'maxRunningCount', 'draftTokenCount'] as const),
];

function LivePath({ summary }: { readonly summary: OverviewSummary | undefined }) {
  const path = summary?.livePath ?? null;
  if (summary === undefined || path === null) return null;
  return (
    <dl className={styles.livePath}>
      <div>
        <dt>live path</dt>
        <dd>
          <code>{formatId(summary.livePathId)}</code>
        </dd>
      </div>
      {shownSettings.map((setting) => (
        <div key={setting}>
          <dt>{settingName(setting)}</dt>
          <dd>{settingValue(path[setting])}</dd>
        </div>
      ))}
    </dl>
  );
}
