'use client';
/**
 * A canary's paired blocks: each pair's change of cost as a point, the confidence interval after each pair as it
 * closes, the predicted change as a dashed line, zero as the line to stay clear of. Rows in, picture out.
 */
import {
  CartesianGrid,
  ComposedChart,
  ReferenceArea,
  ReferenceLine,
  Scatter,
  usePlotArea,
  useXAxisScale,
  useYAxisScale,
  XAxis,
  YAxis,
} from 'recharts';
import type { RolloutView } from '../api.ts';
import { formatChange, formatChangeRange } from '../format.ts';
import { signedTicks } from './axis.ts';
import styles from './chart.module.css';

interface Interval {
  readonly pairCount: number;
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

const changeOf = (logRatio: number): number => Math.expm1(logRatio);

export function PairChart(props: {
  readonly pairs: RolloutView['pairs'];
  readonly plannedPairCount: number;
  /** On the mean log ratio, oldest first. */
  readonly trail: readonly Interval[];
  readonly predicted: { readonly value: number; readonly low: number; readonly high: number } | null;
}) {
  const { pairs, trail, predicted } = props;
  const points = pairs.map((pair, index) => ({ pair: index + 1, change: changeOf(pair.logCostRatio) }));
  const last = trail.at(-1);
  const shown = [
    ...points.map(({ change }) => change),
    ...(predicted === null ? [] : [predicted.low, predicted.high]),
    ...(last === undefined ? [] : [changeOf(last.low), changeOf(last.high)]),
  ].map((change) => Math.max(-1, Math.min(1, change)));
  const ticks = signedTicks(Math.min(-0.02, ...shown), Math.max(0.02, ...shown));
  const lastPair = Math.max(props.plannedPairCount, pairs.length, 2);
  const pairTicks = Array.from({ length: lastPair }, (_, index) => index + 1);
  const summary =
    last === undefined
      ? `Change of cost by pair: ${points.length} pairs so far, no interval yet.`
      : `Change of cost by pair: ${formatChange(changeOf(last.mean))} after ${last.pairCount} pairs, interval ${formatChangeRange(changeOf(last.low), changeOf(last.high))}.`;
  return (
    <figure className={styles.chart}>
      <figcaption className={styles.head}>
        <h4 className={styles.title}>
          Change of cost by pair <span className={styles.unit}>%, new path against old</span>
        </h4>
      </figcaption>
      <p className="visually-hidden">{summary}</p>
      <ComposedChart
        responsive
        className={styles.plot ?? ''}
        margin={{ top: 8, right: 64, bottom: 0, left: 0 }}
        data={points}
      >
        <CartesianGrid vertical={false} stroke="var(--line)" strokeOpacity={0.7} />
        {predicted !== null && (
          <ReferenceArea
            y1={predicted.low}
            y2={predicted.high}
            fill="var(--muted)"
            fillOpacity={0.1}
            ifOverflow="hidden"
          />
        )}
        <XAxis
          dataKey="pair"
          type="number"
          domain={[0.5, lastPair + 0.5]}
          ticks={pairTicks.length > 12 ? pairTicks.filter((pair) => pair % 5 === 0) : pairTicks}
          height={22}
          tickLine={false}
          axisLine={{ stroke: 'var(--line)' }}
          tick={{ fill: 'var(--muted)', fontSize: 11 }}
        />
        <YAxis
          width={44}
          domain={[ticks[0] ?? -1, ticks.at(-1) ?? 1]}
          ticks={ticks}
          allowDataOverflow
          tickFormatter={(change: number) => formatChange(change).replace(' %', '')}
          tickLine={false}
          axisLine={false}
          tick={{ fill: 'var(--muted)', fontSize: 11 }}
        />
        <ReferenceLine y={0} stroke="var(--text)" strokeOpacity={0.6} />
        {predicted !== null && (
          <ReferenceLine
            y={predicted.value}
            stroke="var(--text)"
            strokeDasharray="5 4"
            strokeOpacity={0.55}
            label={{ value: 'predicted', position: 'right', fill: 'var(--muted)', fontSize: 11 }}
          />
        )}
        <Intervals trail={trail} />
        <Scatter dataKey="change" fill="var(--series-1)" isAnimationActive={false} shape={<PairDot />} />
      </ComposedChart>
    </figure>
  );
}

function PairDot({ cx, cy }: { readonly cx?: number; readonly cy?: number }) {
  if (cx === undefined || cy === undefined) return null;
  return <circle cx={cx} cy={cy} r={3.5} fill="var(--series-1)" stroke="var(--surface)" strokeWidth={1} />;
}

function Intervals({ trail }: { readonly trail: readonly Interval[] }) {
  const xOf = useXAxisScale();
  const yOf = useYAxisScale();
  const plot = usePlotArea();
  if (xOf === undefined || yOf === undefined || plot === undefined) return null;
  const clamp = (y: number | undefined): number =>
    Math.min(plot.y + plot.height, Math.max(plot.y, y ?? plot.y + plot.height / 2));
  return (
    <g>
      {trail.map(({ pairCount, mean, low, high }, index) => {
        const x = (xOf(pairCount) ?? 0) + 7;
        const isLast = index === trail.length - 1;
        const top = clamp(yOf(changeOf(high)));
        const bottom = clamp(yOf(changeOf(low)));
        const middle = clamp(yOf(changeOf(mean)));
        return (
          <g
            key={pairCount}
            stroke="var(--text)"
            strokeOpacity={isLast ? 0.9 : 0.3}
            strokeWidth={isLast ? 1.5 : 1}
          >
            <path d={`M${x - 3} ${top}h6M${x - 3} ${bottom}h6M${x} ${top}V${bottom}`} fill="none" />
            <path d={`M${x - 4} ${middle}h8`} strokeWidth={2} />
          </g>
        );
      })}
    </g>
  );
}
