'use client';
/**
 * One plot of points over two numeric axes: what lies behind them and the marks themselves are layers that the caller
 * gives; this file has the axes, the pointer (mouse or arrow keys, values in the head so that nothing covers a point), and
 * the same as a table. Rows in, picture out; fetches nothing.
 */
import { Table2 } from 'lucide-react';
import { type ReactNode, useState } from 'react';
import { createPortal } from 'react-dom';
import {
  CartesianGrid,
  ScatterChart as Plot,
  usePlotArea,
  useXAxisScale,
  useYAxisScale,
  XAxis,
  YAxis,
} from 'recharts';
import styles from './chart.module.css';

export interface ScatterAxis {
  readonly label: string;
  readonly scale: 'linear' | 'log';
  readonly domain: readonly [number, number];
  readonly ticks: readonly number[];
}

/** A mark that can be pointed at, and what is said of it. */
export interface ScatterTarget {
  readonly x: number;
  readonly y: number;
  readonly words: readonly { readonly name: string; readonly value: string }[];
}

export interface ScatterKey {
  readonly label: string;
  readonly colour: string;
  readonly mark: 'round' | 'square';
}

export function ScatterChart(props: {
  readonly title: string;
  readonly unit: string;
  readonly summary: string;
  readonly headingLevel: 'h2' | 'h4';
  readonly x: ScatterAxis;
  readonly y: ScatterAxis;
  readonly targets: readonly ScatterTarget[];
  readonly keys: readonly ScatterKey[];
  /** Layers within the plot, the hindmost first; they ask it for its scales. */
  readonly children: ReactNode;
  readonly table: ReactNode;
}) {
  const { title, unit, x, y, targets, keys } = props;
  const [view, setView] = useState<'plot' | 'table'>('plot');
  const [readoutAt, setReadoutAt] = useState<HTMLElement | null>(null);
  const Heading = props.headingLevel;
  return (
    <figure className={styles.chart}>
      <figcaption className={styles.head}>
        <Heading className={styles.title}>
          {title} <span className={styles.unit}>{unit}</span>
        </Heading>
        <div className={styles.readout} ref={setReadoutAt} />
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
      <p className="visually-hidden">{props.summary}</p>
      {view === 'table' ? (
        <section
          className={`${styles.tableBox} ${styles.tall}`}
          aria-label={`${title}, values`} /* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard */
          tabIndex={0}
        >
          {props.table}
        </section>
      ) : (
        <Plot
          responsive
          className={`${styles.plot} ${styles.tall}`}
          accessibilityLayer={false}
          margin={{ top: 8, right: 16, bottom: 14, left: 0 }}
        >
          <CartesianGrid stroke="var(--line)" strokeOpacity={0.7} />
          <XAxis
            dataKey="x"
            type="number"
            scale={x.scale}
            domain={[...x.domain]}
            ticks={[...x.ticks]}
            allowDataOverflow
            height={22}
            tickFormatter={axisNumber}
            tickLine={false}
            axisLine={{ stroke: 'var(--line)' }}
            tick={{ fill: 'var(--muted)', fontSize: 11 }}
            label={{
              value: x.label,
              position: 'insideBottomRight',
              offset: -12,
              fill: 'var(--muted)',
              fontSize: 11,
            }}
          />
          <YAxis
            dataKey="y"
            type="number"
            width={44}
            scale={y.scale}
            domain={[...y.domain]}
            ticks={[...y.ticks]}
            allowDataOverflow
            tickFormatter={axisNumber}
            tickLine={false}
            axisLine={false}
            tick={{ fill: 'var(--muted)', fontSize: 11 }}
          />
          {props.children}
          <Pointer targets={targets} keys={keys} title={title} readoutAt={readoutAt} />
        </Plot>
      )}
    </figure>
  );
}

const axisNumber = (value: number): string =>
  value.toLocaleString('en-US', Number.isInteger(value) ? {} : { maximumSignificantDigits: 3 });

/** The plot's scales for a layer; null before it has a size. */
export function usePlot() {
  const xOf = useXAxisScale();
  const yOf = useYAxisScale();
  const area = usePlotArea();
  if (xOf === undefined || yOf === undefined || area === undefined) return null;
  return {
    area,
    xOf: (value: number): number => xOf(value) ?? Number.NaN,
    yOf: (value: number): number => yOf(value) ?? Number.NaN,
  };
}

/** Many points as one path each, which thousands of elements would not be quick enough for. */
export function Dots(props: {
  readonly points: readonly { readonly x: number; readonly y: number }[];
  readonly colour: string;
  readonly mark: 'round' | 'square';
  readonly opacity: number;
}) {
  const plot = usePlot();
  if (plot === null || props.points.length === 0) return null;
  const dots = props.points.map(({ x, y }) => `M${plot.xOf(x).toFixed(1)} ${plot.yOf(y).toFixed(1)}h0`);
  return (
    <path
      d={dots.join('')}
      fill="none"
      stroke={props.colour}
      strokeOpacity={props.opacity}
      strokeWidth={props.mark === 'square' ? 3.5 : 4}
      strokeLinecap={props.mark}
    />
  );
}

const REACH_PX = 40;

/** Follows the mouse to the nearest mark; by keyboard, arrow keys go from mark to mark along the horizontal axis. */
function Pointer(props: {
  readonly targets: readonly ScatterTarget[];
  readonly keys: readonly ScatterKey[];
  readonly title: string;
  readonly readoutAt: HTMLElement | null;
}) {
  const { targets, keys, readoutAt } = props;
  const [pointed, setPointed] = useState<number | null>(null);
  const plot = usePlot();
  if (plot === null || readoutAt === null) return null;
  const { area, xOf, yOf } = plot;
  const target = pointed === null ? undefined : targets[pointed];
  const order = targets.map((_, index) => index).sort((a, b) => (targets[a]?.x ?? 0) - (targets[b]?.x ?? 0));
  const nearest = (x: number, y: number): number | null => {
    let best: number | null = null;
    let leastPx = REACH_PX;
    targets.forEach((one, index) => {
      const apartPx = Math.hypot(xOf(one.x) - x, yOf(one.y) - y);
      if (apartPx < leastPx) [best, leastPx] = [index, apartPx];
    });
    return best;
  };
  const move = (key: string): boolean => {
    const at = pointed === null ? -1 : order.indexOf(pointed);
    const last = order.length - 1;
    const next = {
      ArrowRight: at + 1,
      ArrowUp: at + 1,
      ArrowLeft: at - 1,
      ArrowDown: at - 1,
      Home: 0,
      End: last,
    }[key];
    if (next === undefined) return false;
    setPointed(order[Math.max(0, Math.min(last, next))] ?? null);
    return true;
  };
  return (
    <>
      {target !== undefined && (
        <circle
          cx={xOf(target.x)}
          cy={yOf(target.y)}
          r={6}
          fill="none"
          stroke="var(--text)"
          strokeWidth={1.5}
          pointerEvents="none"
        />
      )}
      <rect
        role="slider"
        aria-label={`Points of ${props.title}; arrow keys go from one to the next`}
        aria-valuemin={1}
        aria-valuemax={Math.max(1, targets.length)}
        aria-valuenow={pointed === null ? 1 : order.indexOf(pointed) + 1}
        aria-valuetext={
          target?.words.map(({ name, value }) => `${name} ${value}`).join(', ') ?? 'none chosen'
        }
        tabIndex={0}
        className={styles.pointer}
        x={area.x}
        y={area.y}
        width={area.width}
        height={area.height}
        fill="transparent"
        onPointerMove={(event) => {
          const box = event.currentTarget.getBoundingClientRect();
          setPointed(nearest(event.clientX - box.left + area.x, event.clientY - box.top + area.y));
        }}
        onPointerLeave={() => setPointed(null)}
        onBlur={() => setPointed(null)}
        onKeyDown={(event) => {
          if (move(event.key)) event.preventDefault();
        }}
      />
      {createPortal(
        target === undefined
          ? keys.map(({ label, colour, mark }) => (
              <span key={label} className={styles.value}>
                <svg width="8" height="8" aria-hidden="true">
                  <path d="M4 4h0" stroke={colour} strokeWidth={7} strokeLinecap={mark} />
                </svg>
                <span className={styles.name}>{label}</span>
              </span>
            ))
          : target.words.map(({ name, value }) => (
              <span key={name} className={styles.value}>
                <span className={styles.name}>{name}</span>
                <span>{value}</span>
              </span>
            )),
        readoutAt,
      )}
    </>
  );
}
