/** A chart's rows as a table, newest first; what was not measured is a dash. Called by the time chart. */
import { DASH, formatFullTime, formatMoment } from '../format.ts';
import styles from './chart.module.css';
import { type ChartRow, lengthMs } from './rows.ts';
import type { ChartSeries } from './time-chart.tsx';

export function ChartTable(props: {
  readonly rows: readonly ChartRow[];
  readonly series: readonly ChartSeries[];
  readonly format: (value: number) => string;
}) {
  return (
    <section
      className={styles.tableBox}
      aria-label="Values" /* biome-ignore lint/a11y/noNoninteractiveTabindex: a box that scrolls must be reachable by keyboard */
      tabIndex={0}
    >
      <table className={styles.table}>
        <thead>
          <tr>
            <th scope="col">from</th>
            {props.series.map(({ key, label }) => (
              <th key={key} scope="col">
                {label}
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {props.rows.toReversed().map((row) => (
            <tr key={row.at}>
              <th scope="row" title={formatFullTime(row.at)}>
                {formatMoment(row.at, lengthMs(props.rows))}
              </th>
              {props.series.map(({ key }) => {
                const value = row.values[key] ?? null;
                return <td key={key}>{value === null ? DASH : props.format(value)}</td>;
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </section>
  );
}
