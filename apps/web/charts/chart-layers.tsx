'use client';
/**
 * What lies behind and beside the lines of a time chart: regime bands, rollout marks, labels at the lines' ends and the
 * values under the crosshair. Each asks the chart around it for its scales; none computes a value.
 */
import { useId } from 'react';
import { createPortal } from 'react-dom';
import { useActiveTooltipLabel, usePlotArea, useXAxisScale, useYAxisScale } from 'recharts';
import type { RegimeMark, RolloutMark } from '../api.ts';
import { colourOfRegime } from '../colours.ts';
import { formatFullTime, formatMoment } from '../format.ts';
import styles from './chart.module.css';
import { type ChartRow, latestRow, lengthMs } from './rows.ts';
import type { ChartSeries } from './time-chart.tsx';

interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

export function RegimeBands({ regimes, fromMs, toMs }: Span & { readonly regimes: readonly RegimeMark[] }) {
  const xOf = useXAxisScale();
  const plot = usePlotArea();
  const patternId = useId();
  if (xOf === undefined || plot === undefined) return null;
  return (
    <g>
      {regimes.map((regime) => {
        const left = xOf(Math.max(fromMs, regime.startedAt));
        const right = xOf(Math.min(toMs, regime.endedAt ?? toMs));
        if (left === undefined || right === undefined || right <= left) return null;
        const colour = colourOfRegime(regime);
        const ground = { x: left, y: plot.y, width: right - left, height: plot.height };
        const hatchId = `${patternId}${regime.startedAt}`;
        return (
          <g key={regime.startedAt}>
            {regime.isConfirmed ? (
              <rect {...ground} fill={colour} fillOpacity={0.05} />
            ) : (
              <>
                <pattern
                  id={hatchId}
                  width="6"
                  height="6"
                  patternUnits="userSpaceOnUse"
                  patternTransform="rotate(45)"
                >
                  <rect width="1.5" height="6" fill={colour} fillOpacity={0.16} />
                </pattern>
                <rect {...ground} fill={`url(#${hatchId})`} />
              </>
            )}
            {/* Where regimes are only pixels wide, their borders would hide the lines. */}
            {regime.startedAt > fromMs && right - left >= 6 && (
              <line
                x1={left}
                x2={left}
                y1={plot.y}
                y2={plot.y + plot.height}
                stroke={colour}
                strokeOpacity={0.45}
              />
            )}
          </g>
        );
      })}
    </g>
  );
}

export function RolloutMarks({
  rollouts,
  fromMs,
  toMs,
}: Span & { readonly rollouts: readonly RolloutMark[] }) {
  const xOf = useXAxisScale();
  const plot = usePlotArea();
  if (xOf === undefined || plot === undefined) return null;
  return (
    <g>
      {rollouts.map((rollout) => {
        const x = rollout.at < fromMs || rollout.at > toMs ? undefined : xOf(rollout.at);
        if (x === undefined) return null;
        return (
          <g key={`${rollout.at} ${rollout.label}`} className={styles.mark}>
            <title>{`${rollout.label}: ${rollout.outcome}, ${formatFullTime(rollout.at)}`}</title>
            <line x1={x} x2={x} y1={plot.y} y2={plot.y + plot.height} />
            <path d={`M${x} ${plot.y}h8l-2.5 3.5 2.5 3.5h-8z`} />
            <rect x={x - 4} y={plot.y} width={14} height={plot.height} fill="transparent" stroke="none" />
          </g>
        );
      })}
    </g>
  );
}

/** An objective above the axis' upper end, named where it would come into sight. */
export function FarObjective({ label }: { readonly label: string }) {
  const plot = usePlotArea();
  if (plot === undefined) return null;
  return (
    <text
      x={plot.x + plot.width - 5}
      y={plot.y + 4}
      dy="0.71em"
      textAnchor="end"
      fill="var(--muted)"
      fontSize={11}
      className={styles.objective}
    >
      ↑ {label}
    </text>
  );
}

const LABEL_PX = 12;

/** Labels at the lines' ends, pushed apart where the ends meet. */
export function LineEnds({
  rows,
  series,
}: {
  readonly rows: readonly ChartRow[];
  readonly series: readonly ChartSeries[];
}) {
  const xOf = useXAxisScale();
  const yOf = useYAxisScale();
  const plot = usePlotArea();
  const last = latestRow(rows);
  if (xOf === undefined || yOf === undefined || plot === undefined || last === undefined) return null;
  if (series.length < 2) return null;
  const end = rows.findLast(({ values }) => Object.values(values).some((value) => value !== null)) ?? last;
  const x = Math.min((xOf(end.at) ?? 0) + 6, plot.x + plot.width + 6);
  // Where the lines ended long ago, a label at the right end would point at nothing.
  if ((xOf(last.at) ?? 0) < plot.x + plot.width * 0.9) return null;
  const ends = series
    .flatMap(({ key, label, colour }) => {
      const value = last.full[key] ?? last.values[key] ?? null;
      const y = value === null ? undefined : yOf(value);
      return y === undefined ? [] : [{ label, colour, y }];
    })
    .sort((a, b) => b.y - a.y);
  let floor = plot.y + plot.height + LABEL_PX;
  return (
    <g className={styles.lineEnds}>
      {ends.map(({ label, colour, y }) => {
        floor = Math.min(y, floor - LABEL_PX);
        return (
          <text key={label} x={x} y={floor} dy="0.32em" fill={colour}>
            {label}
          </text>
        );
      })}
    </g>
  );
}

export function Readout(props: {
  readonly target: HTMLElement | null;
  readonly rows: readonly ChartRow[];
  readonly series: readonly ChartSeries[];
  readonly format: (value: number) => string;
}) {
  const label = useActiveTooltipLabel();
  if (props.target === null) return null;
  const pointed = label === undefined ? undefined : props.rows.find((row) => row.at === Number(label));
  const row = pointed ?? latestRow(props.rows);
  return createPortal(
    <>
      {row === undefined ? (
        <span className={styles.aside}>no data in this range</span>
      ) : (
        props.series.map(({ key, label: name, colour, stroke }) => {
          const value = row.values[key] ?? null;
          return (
            <span key={key} className={styles.value}>
              <svg width="14" height="8" aria-hidden="true">
                <line x1="0" x2="14" y1="4" y2="4" stroke={colour} className={styles[stroke]} />
              </svg>
              <span className={styles.name}>{name}</span>
              <span>{value === null ? '–' : props.format(value)}</span>
            </span>
          );
        })
      )}
      {pointed !== undefined && (
        <span className={styles.at}>{formatMoment(pointed.at, lengthMs(props.rows))}</span>
      )}
    </>,
    props.target,
  );
}
