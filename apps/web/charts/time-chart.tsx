'use client';
/**
 * One plot over time: lines with gaps, regime bands behind, rollout marks, an objective, a crosshair shared by all
 * charts of the page, values under the crosshair in the head (so that nothing covers a point), and the same as a
 * table. Rows in, picture out; fetches nothing.
 */
import { Logs, Table2 } from 'lucide-react';
import { useMemo, useState } from 'react';
import { CartesianGrid, Line, LineChart, ReferenceLine, Tooltip, XAxis, YAxis } from 'recharts';
import type { RegimeMark, RolloutMark } from '../api.ts';
import { formatAxisTime, formatCount } from '../format.ts';
import { logTicks, rateTicks, timeStepMs, timeTicks } from './axis.ts';
import styles from './chart.module.css';
import { FarObjective, LineEnds, Readout, RegimeBands, RolloutMarks } from './chart-layers.tsx';
import { ChartTable } from './chart-table.tsx';
import { type ChartRow, spanOf, summariseRows } from './rows.ts';

export interface ChartSeries {
  readonly key: string;
  readonly label: string;
  readonly colour: string;
  /** p50 solid, p95 thinner, p99 dotted. */
  readonly stroke: 'solid' | 'thin' | 'dotted';
}

export interface TimeChartProps {
  readonly title: string;
  readonly unit: string;
  readonly rows: readonly ChartRow[];
  readonly fromMs: number;
  readonly toMs: number;
  readonly series: readonly ChartSeries[];
  readonly format: (value: number) => string;
  /** What the axis' numbers are multiplied with, e.g. 100 for a share shown in per cent. */
  readonly axisFactor?: number;
  readonly objective?: { readonly value: number; readonly label: string };
  /** The upper end of the axis where it is known, e.g. 1 for a share. */
  readonly most?: number;
  readonly scale: 'linear' | 'linear or log';
  readonly regimes: readonly RegimeMark[];
  readonly rollouts: readonly RolloutMark[];
}

const strokes = {
  solid: { strokeWidth: 2 },
  thin: { strokeWidth: 1.25 },
  dotted: { strokeWidth: 1.5, strokeDasharray: '1.5 3', strokeLinecap: 'round' },
} as const;

export const PLOT_LEFT_PX = 44;
export const PLOT_RIGHT_PX = 46;

export function TimeChart(props: TimeChartProps) {
  const { title, unit, rows, fromMs, toMs, series, format, objective, regimes, rollouts } = props;
  const [view, setView] = useState<'plot' | 'table'>('plot');
  const [scale, setScale] = useState<'linear' | 'log'>('linear');
  const [readoutAt, setReadoutAt] = useState<HTMLElement | null>(null);
  const span = useMemo(() => spanOf(rows), [rows]);
  const summary = useMemo(() => summariseRows(title, rows, series, format), [title, rows, series, format]);
  const isLog = scale === 'log' && span !== null && span.least > 0;
  // An objective far above the values would press them flat, so it is named at the top instead.
  const isObjectiveNear = objective !== undefined && span !== null && objective.value <= span.most * 3;
  const most = props.most ?? Math.max(span?.most ?? 0, isObjectiveNear ? objective.value * 1.05 : 0);
  const ticks = isLog ? logTicks(span.least, Math.max(most, span.most)) : rateTicks(most);
  const step = timeStepMs(fromMs, toMs);
  return (
    <figure className={styles.chart}>
      <figcaption className={styles.head}>
        <h2 className={styles.title}>
          {title} <span className={styles.unit}>{unit}</span>
        </h2>
        <div className={styles.readout} ref={setReadoutAt} />
        {props.scale === 'linear or log' && view === 'plot' && (
          <button
            type="button"
            className={styles.tool}
            aria-pressed={scale === 'log'}
            onClick={() => setScale(scale === 'log' ? 'linear' : 'log')}
            title={scale === 'log' ? 'Linear scale' : 'Logarithmic scale'}
          >
            <Logs size={14} aria-hidden="true" />
            <span className="visually-hidden">Logarithmic scale for {title}</span>
          </button>
        )}
        <button
          type="button"
          className={styles.tool}
          aria-pressed={view === 'table'}
          onClick={() => setView(view === 'table' ? 'plot' : 'table')}
          title={view === 'table' ? 'As a picture' : 'As a table'}
        >
          <Table2 size={14} aria-hidden="true" />
          <span className="visually-hidden">{title} as a table</span>
        </button>
      </figcaption>
      <p className="visually-hidden">{summary}</p>
      {view === 'table' ? (
        <ChartTable rows={rows} series={series} format={format} />
      ) : (
        <LineChart
          responsive
          className={styles.plot ?? ''}
          data={rows as ChartRow[]}
          syncId="overview"
          margin={{ top: 8, right: PLOT_RIGHT_PX, bottom: 0, left: 0 }}
          aria-label={`${title}; arrow keys move the crosshair`}
        >
          <RegimeBands regimes={regimes} fromMs={fromMs} toMs={toMs} />
          <CartesianGrid vertical={false} syncWithTicks stroke="var(--line)" strokeOpacity={0.7} />
          <XAxis
            dataKey="at"
            type="number"
            scale="time"
            domain={[fromMs, toMs]}
            ticks={timeTicks(fromMs, toMs)}
            tickFormatter={(at: number) => formatAxisTime(at, step)}
            height={22}
            tickLine={false}
            axisLine={{ stroke: 'var(--line)' }}
            tick={{ fill: 'var(--muted)', fontSize: 11 }}
          />
          <YAxis
            width={PLOT_LEFT_PX}
            scale={isLog ? 'log' : 'linear'}
            domain={[
              ticks[0] ?? 0,
              Math.max(ticks.at(-1) ?? 1, props.most === undefined ? 0 : props.most * 1.03),
            ]}
            ticks={ticks}
            allowDataOverflow
            tickFormatter={(value: number) => axisNumber(value * (props.axisFactor ?? 1))}
            tickLine={false}
            axisLine={false}
            tick={{ fill: 'var(--muted)', fontSize: 11 }}
          />
          <RolloutMarks rollouts={rollouts} fromMs={fromMs} toMs={toMs} />
          {objective !== undefined && isObjectiveNear && (
            <ReferenceLine
              y={objective.value}
              stroke="var(--text)"
              strokeDasharray="5 4"
              strokeOpacity={0.55}
              label={{
                value: objective.label,
                position: 'insideBottomRight',
                className: styles.objective ?? '',
                fill: 'var(--muted)',
                fontSize: 11,
              }}
            />
          )}
          <Tooltip
            content={() => null}
            cursor={{ stroke: 'var(--muted)', strokeWidth: 1 }}
            isAnimationActive={false}
          />
          {series.flatMap(({ key, colour, stroke }) => [
            <Line
              key={`${key} tail`}
              dataKey={(row: ChartRow) => row.tail[key] ?? null}
              stroke={colour}
              {...strokes[stroke]}
              strokeOpacity={0.4}
              dot={<AloneDot line="tail" seriesKey={key} colour={colour} />}
              activeDot={false}
              isAnimationActive={false}
            />,
            <Line
              key={key}
              dataKey={(row: ChartRow) => row.full[key] ?? null}
              stroke={colour}
              {...strokes[stroke]}
              dot={<AloneDot line="full" seriesKey={key} colour={colour} />}
              activeDot={{ r: 3, strokeWidth: 0, fill: colour }}
              isAnimationActive={false}
            />,
          ])}
          {objective !== undefined && !isObjectiveNear && <FarObjective label={objective.label} />}
          <LineEnds rows={rows} series={series} />
          <Readout target={readoutAt} rows={rows} series={series} format={format} />
        </LineChart>
      )}
    </figure>
  );
}

const axisNumber = (value: number): string =>
  value >= 10_000
    ? `${formatCount(value / 1000)}k`
    : value.toLocaleString('en-US', { maximumSignificantDigits: 3 });

/** Recharts draws this for every point; only a point between two gaps shows, since no line would. */
function AloneDot(props: {
  readonly line: 'full' | 'tail';
  readonly seriesKey: string;
  readonly colour: string;
  readonly cx?: number;
  readonly cy?: number;
  readonly payload?: ChartRow;
}) {
  const { line, seriesKey, colour, cx, cy, payload } = props;
  if (cx === undefined || cy === undefined || !payload?.alone.includes(seriesKey)) return null;
  if ((payload[line][seriesKey] ?? null) === null) return null;
  return <circle cx={cx} cy={cy} r={1.75} fill={colour} fillOpacity={line === 'full' ? 1 : 0.5} />;
}
