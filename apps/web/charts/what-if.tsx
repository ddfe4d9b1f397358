'use client';
/**
 * What the search saw when it made a proposal: each path it replayed by predicted cost and latency, with 90 % intervals
 * where there are some, and beside it the two along the setting that the proposal changes. The objective is a line to stay
 * under. Rows in, picture out; a proposal that brought no such paths draws nothing (its card says so).
 */
import { useState } from 'react';
import type { MetricName, Policy, Proposal } from '../api.ts';
import { formatCount } from '../format.ts';
import { metricName, metricValue, settingName, settingValue } from '../labels.ts';
import { spanTicks } from './axis.ts';
import styles from './chart.module.css';
import { ScatterChart, type ScatterTarget, usePlot } from './scatter-chart.tsx';
import {
  type Figure,
  type SettingPoint,
  settingCurve,
  type WhatIfPath,
  whatIfPaths,
} from './what-if-paths.ts';

type Latency = Extract<MetricName, 'itlP99Ms' | 'ttftP95Ms'>;
const COST = 'deviceMsPerRequest';

export function WhatIf(props: {
  readonly proposal: Proposal;
  readonly objectives: Policy['objectives'] | undefined;
}) {
  const [latency, setLatency] = useState<Latency>('itlP99Ms');
  const paths = whatIfPaths(props.proposal);
  const objectiveMs = latency === 'itlP99Ms' ? props.objectives?.itlMs : props.objectives?.ttftMs;
  const curve = settingCurve(props.proposal);
  return (
    <div className={styles.whatIf}>
      <fieldset className={styles.choice}>
        <legend className="visually-hidden">Latency of the what-if</legend>
        {(['itlP99Ms', 'ttftP95Ms'] as const).map((metric) => (
          <button
            key={metric}
            type="button"
            aria-pressed={metric === latency}
            onClick={() => setLatency(metric)}
          >
            {metricName(metric)}
          </button>
        ))}
        <span>The paths that were replayed. Hollow: misses the ITL objective; whiskers: 90 %.</span>
      </fieldset>
      <div className={styles.whatIfCharts}>
        <CostAgainstLatency paths={paths} latency={latency} objectiveMs={objectiveMs} />
        {curve !== null && (
          <>
            <AlongSetting {...curve} metric={COST} objectiveMs={undefined} />
            <AlongSetting {...curve} metric={latency} objectiveMs={objectiveMs} />
          </>
        )}
      </div>
    </div>
  );
}

interface MarkedPath {
  readonly path: WhatIfPath;
  readonly x: Figure;
  readonly y: Figure;
}

function CostAgainstLatency(props: {
  readonly paths: readonly WhatIfPath[];
  readonly latency: Latency;
  readonly objectiveMs: number | undefined;
}) {
  const { latency, objectiveMs } = props;
  const marked = props.paths.flatMap((path): MarkedPath[] => {
    const x = path.figureOf(COST);
    const y = path.figureOf(latency);
    return x === null || y === null ? [] : [{ path, x, y }];
  });
  const name = metricName(latency);
  return (
    <ScatterChart
      title={`Cost against ${name}`}
      unit="ms, predicted"
      summary={`${formatCount(marked.length)} paths by predicted device time a request and ${name}.`}
      headingLevel="h4"
      x={spanAxis(
        'device ms a request',
        marked.map(({ x }) => x),
      )}
      y={spanAxis(
        '',
        marked.map(({ y }) => y),
        objectiveMs,
      )}
      targets={marked.map(({ path, x, y }) => targetOf(path, x.value, y.value, [COST, latency]))}
      keys={[]}
      table={<PathTable paths={marked.map(({ path }) => path)} latency={latency} />}
    >
      <Objective value={objectiveMs} figures={marked.map(({ y }) => y)} />
      <Marks marked={marked} />
    </ScatterChart>
  );
}

function AlongSetting(props: {
  readonly setting: SettingPoint['path']['changes'][number]['setting'];
  readonly points: readonly SettingPoint[];
  readonly metric: MetricName;
  readonly objectiveMs: number | undefined;
}) {
  const { setting, metric, objectiveMs } = props;
  const marked = props.points.flatMap(({ at, path }): MarkedPath[] => {
    const y = path.figureOf(metric);
    const x = { value: at, low: at, high: at, hasInterval: false };
    return y === null ? [] : [{ path, x, y }];
  });
  const values = marked.map(({ x }) => x.value);
  return (
    <ScatterChart
      title={`${metricName(metric)} by ${settingName(setting)}`}
      unit="ms, predicted"
      summary={`${metricName(metric)} at ${marked.map(({ x, y }) => `${settingValue(x.value)}: ${metricValue(metric, y.value)}`).join(', ')}.`}
      headingLevel="h4"
      x={{
        label: settingName(setting),
        scale: 'log',
        domain: [Math.min(...values) / 1.2, Math.max(...values) * 1.2],
        ticks: values,
      }}
      y={spanAxis(
        '',
        marked.map(({ y }) => y),
        objectiveMs,
      )}
      targets={marked.map(({ path, x, y }) => targetOf(path, x.value, y.value, [metric]))}
      keys={[]}
      table={<SettingTable setting={setting} metric={metric} marked={marked} />}
    >
      <Objective value={objectiveMs} figures={marked.map(({ y }) => y)} />
      <Through marked={marked} />
      <Marks marked={marked} />
    </ScatterChart>
  );
}

/** An objective far from all that is compared would press it flat: it is named at the edge then. */
const isNear = (value: number, figures: readonly Figure[]): boolean =>
  value <= 2 * Math.max(...figures.map(({ high }) => high)) &&
  value >= 0.5 * Math.min(...figures.map(({ low }) => low));

function spanAxis(label: string, figures: readonly Figure[], objective?: number) {
  const shown = [
    ...figures.flatMap(({ low, high }) => [low, high]),
    ...(objective !== undefined && isNear(objective, figures) ? [objective] : []),
  ];
  const ticks = spanTicks(Math.min(...shown), Math.max(...shown));
  return { label, scale: 'linear', ticks, domain: [ticks[0] ?? 0, ticks.at(-1) ?? 1] } as const;
}

const roleNames = { now: 'now', proposed: 'proposed', other: '' } as const;

const changesInWords = (path: WhatIfPath): string =>
  path.changes.length === 0
    ? 'as now'
    : path.changes.map(({ setting, to }) => `${settingName(setting)} ${settingValue(to)}`).join(', ');

function targetOf(path: WhatIfPath, x: number, y: number, metrics: readonly MetricName[]): ScatterTarget {
  return {
    x,
    y,
    words: [
      { name: path.keepsObjectives ? '' : 'misses the objective:', value: changesInWords(path) },
      ...metrics.map((metric) => ({
        name: metricName(metric),
        value: metricValue(metric, path.figureOf(metric)?.value ?? null),
      })),
    ],
  };
}

/** Intervals as whiskers; the present path a filled dot, the proposed one a diamond, what misses an objective hollow. */
function Marks({ marked }: { readonly marked: readonly MarkedPath[] }) {
  const plot = usePlot();
  if (plot === null) return null;
  const { xOf, yOf, area } = plot;
  const byRole = [...marked].sort((a, b) => order.indexOf(a.path.role) - order.indexOf(b.path.role));
  return (
    <g className={styles.marks}>
      {byRole.map(({ path, x, y }) => {
        const [cx, cy] = [xOf(x.value), yOf(y.value)];
        const colour =
          path.role === 'proposed' ? 'var(--accent)' : path.role === 'now' ? 'var(--text)' : 'var(--muted)';
        const isRight = cx > area.x + area.width - 60;
        return (
          <g
            key={changesInWords(path)}
            stroke={colour}
            fill={path.keepsObjectives ? colour : 'var(--surface)'}
          >
            {x.hasInterval && <path d={`M${xOf(x.low)} ${cy}H${xOf(x.high)}`} strokeOpacity={0.55} />}
            {y.hasInterval && <path d={`M${cx} ${yOf(y.low)}V${yOf(y.high)}`} strokeOpacity={0.55} />}
            {path.role === 'proposed' ? (
              <path d={`M${cx} ${cy - 6}l6 6l-6 6l-6 -6Z`} strokeWidth={1.5} />
            ) : (
              <circle cx={cx} cy={cy} r={path.role === 'now' ? 5 : 3.5} strokeWidth={1.5} />
            )}
            {path.role !== 'other' && (
              <text
                x={isRight ? cx - 9 : cx + 9}
                y={cy - 9}
                textAnchor={isRight ? 'end' : 'start'}
                fill={colour}
                className={styles.objective}
              >
                {roleNames[path.role]}
              </text>
            )}
          </g>
        );
      })}
    </g>
  );
}
const order = ['other', 'now', 'proposed'];

function Through({ marked }: { readonly marked: readonly MarkedPath[] }) {
  const plot = usePlot();
  if (plot === null) return null;
  const ends = marked.map(({ x, y }) => `${plot.xOf(x.value)} ${plot.yOf(y.value)}`);
  return <path d={`M${ends.join('L')}`} fill="none" stroke="var(--muted)" strokeWidth={1.25} />;
}

function Objective(props: { readonly value: number | undefined; readonly figures: readonly Figure[] }) {
  const plot = usePlot();
  const { value, figures } = props;
  if (plot === null || value === undefined || figures.length === 0) return null;
  const { area, yOf } = plot;
  const label = `objective ${metricValue('itlP99Ms', value)}`;
  const isInside = isNear(value, figures);
  const isAbove = value > Math.max(...figures.map(({ high }) => high));
  const y = isInside ? yOf(value) : isAbove ? area.y + 10 : area.y + area.height - 4;
  return (
    <g>
      {isInside && (
        <path
          d={`M${area.x} ${y}h${area.width}`}
          stroke="var(--text)"
          strokeDasharray="5 4"
          strokeOpacity={0.55}
        />
      )}
      <text
        x={area.x + area.width - 5}
        y={isInside ? y - 5 : y}
        textAnchor="end"
        fill="var(--muted)"
        fontSize={11}
        className={styles.objective}
      >
        {isInside ? label : `${isAbove ? '↑' : '↓'} ${label}`}
      </text>
    </g>
  );
}

function inWords(metric: MetricName, figure: Figure | null): string {
  const value = metricValue(metric, figure?.value ?? null);
  if (figure === null || !figure.hasInterval) return value;
  return `${value} (${metricValue(metric, figure.low)} to ${metricValue(metric, figure.high)})`;
}

function PathTable(props: { readonly paths: readonly WhatIfPath[]; readonly latency: Latency }) {
  const metrics = [COST, props.latency] as const;
  return (
    <table className={styles.table}>
      <thead>
        <tr>
          <th scope="col">path</th>
          {metrics.map((metric) => (
            <th key={metric} scope="col">
              {metricName(metric)}
            </th>
          ))}
          <th scope="col">ITL objective</th>
        </tr>
      </thead>
      <tbody>
        {props.paths.map((path) => (
          <tr key={changesInWords(path)}>
            <th scope="row">
              {changesInWords(path)}
              {path.role === 'proposed' ? ' (proposed)' : ''}
            </th>
            {metrics.map((metric) => (
              <td key={metric}>{inWords(metric, path.figureOf(metric))}</td>
            ))}
            <td>{path.keepsObjectives ? 'kept' : 'missed'}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function SettingTable(props: {
  readonly setting: SettingPoint['path']['changes'][number]['setting'];
  readonly metric: MetricName;
  readonly marked: readonly MarkedPath[];
}) {
  return (
    <table className={styles.table}>
      <thead>
        <tr>
          <th scope="col">{settingName(props.setting)}</th>
          <th scope="col">{metricName(props.metric)}</th>
        </tr>
      </thead>
      <tbody>
        {props.marked.map(({ path, x, y }) => (
          <tr key={x.value}>
            <th scope="row">
              {settingValue(x.value)}
              {path.role === 'other' ? '' : ` (${roleNames[path.role]})`}
            </th>
            <td>{inWords(props.metric, y)}</td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}
