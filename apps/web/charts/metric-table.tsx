/**
 * Metrics as a table with a bar for each change: now, predicted, the predicted change with its interval, and realised
 * where it is known. All bars of a table share one scale. Rows in, picture out; used by proposals and ledger.
 */
import type { MetricName } from '../api.ts';
import { formatChange, formatChangeRange } from '../format.ts';
import { changeTone, metricName, metricValue } from '../labels.ts';
import { IntervalBar } from './interval-bar.tsx';
import styles from './metric-table.module.css';

interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

export interface MetricRow {
  readonly metric: MetricName;
  readonly before: Estimate | null;
  readonly predicted: Estimate | null;
  readonly predictedChange: Estimate;
  /** null where it was not or cannot be measured. */
  readonly realisedChange: Estimate | null;
}

export function MetricTable({
  caption,
  rows,
}: {
  readonly caption: string;
  readonly rows: readonly MetricRow[];
}) {
  const hasValues = rows.some((row) => row.before !== null);
  const hasRealised = rows.some((row) => row.realisedChange !== null) || !hasValues;
  const most = Math.min(
    1,
    Math.max(
      0.05,
      ...rows.flatMap(({ predictedChange, realisedChange }) =>
        [predictedChange, realisedChange].flatMap((change) =>
          change === null ? [] : [Math.abs(change.low), Math.abs(change.high)],
        ),
      ),
    ),
  );
  return (
    <table className={styles.table}>
      <caption className="visually-hidden">{caption}</caption>
      <thead>
        <tr>
          <th scope="col">metric</th>
          {hasValues && <th scope="col">now</th>}
          {hasValues && <th scope="col">predicted</th>}
          <th scope="col">{hasValues ? 'change' : 'predicted'}</th>
          {hasRealised && <th scope="col">realised</th>}
          <th scope="col" className={styles.bar}>
            <span className={styles.scale} aria-hidden="true">
              <span>{formatChange(-most)}</span>
              <span>0</span>
              <span>{formatChange(most)}</span>
            </span>
            <span className="visually-hidden">as a bar</span>
          </th>
        </tr>
      </thead>
      <tbody>
        {rows.map((row) => (
          <tr key={row.metric}>
            <th scope="row">{metricName(row.metric)}</th>
            {hasValues && <td>{metricValue(row.metric, row.before?.value ?? null)}</td>}
            {hasValues && <td>{metricValue(row.metric, row.predicted?.value ?? null)}</td>}
            <ChangeCell metric={row.metric} change={row.predictedChange} />
            {hasRealised && (
              <ChangeCell
                metric={row.metric}
                change={row.realisedChange}
                withoutInterval="before and after"
              />
            )}
            <td className={styles.bar}>
              <IntervalBar
                most={most}
                predicted={row.predictedChange}
                realised={row.realisedChange}
                tone={changeTone(row.metric, row.predictedChange.low, row.predictedChange.high)}
              />
            </td>
          </tr>
        ))}
      </tbody>
    </table>
  );
}

function ChangeCell(props: {
  readonly metric: MetricName;
  readonly change: Estimate | null;
  /** Said in the place of an interval where there is none. */
  readonly withoutInterval?: string;
}) {
  const { metric, change, withoutInterval = '' } = props;
  if (change === null) return <td className={styles.none}>not measured</td>;
  return (
    <td>
      <span className={styles.change} data-tone={changeTone(metric, change.low, change.high)}>
        {formatChange(change.value)}
      </span>
      {change.low !== change.high ? (
        <small>{formatChangeRange(change.low, change.high)}</small>
      ) : (
        withoutInterval !== '' && <small>{withoutInterval}</small>
      )}
    </td>
  );
}
