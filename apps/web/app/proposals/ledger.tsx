'use client';
/**
 * What was decided before: predicted beside realised, verdict, state, and the way back from what is live. A row opens
 * its rollout and every metric of it. Called by the proposals page.
 */
import { ChevronRight, CircleAlert, CircleCheck, CircleMinus } from 'lucide-react';
import type { LedgerEntry, RolloutView } from '../../api.ts';
import { MetricTable } from '../../charts/metric-table.tsx';
import { formatAgo, formatChange, formatChangeRange, formatFullTime } from '../../format.ts';
import { leadingRow, metricName, rolloutStateName, verdictName } from '../../labels.ts';
import styles from './ledger.module.css';
import { RollBack } from './roll-back.tsx';

interface LedgerProps {
  readonly entries: readonly LedgerEntry[] | undefined;
  readonly rollouts: readonly RolloutView[];
  /** The entry that is open. */
  readonly openRolloutId: string;
  /** The rollout whose card stands above, with its own way back. */
  readonly cardRolloutId: string;
  readonly onShow: (rolloutId: string) => void;
  readonly now: number | null;
}

export function Ledger({ entries, rollouts, openRolloutId, cardRolloutId, onShow, now }: LedgerProps) {
  if (entries === undefined) return null;
  if (entries.length === 0) {
    return (
      <p className={styles.none}>
        No rollout has ended yet. Each one leaves a row here, also when it was rolled back: what was
        predicted, what was measured, and the verdict.
      </p>
    );
  }
  return (
    <ul className={styles.list}>
      {entries.map((entry) => {
        const rollout = rollouts.find(({ rolloutId }) => rolloutId === entry.rolloutId);
        const isOpen = entry.rolloutId === openRolloutId;
        const row = leadingRow(entry.rows);
        const metricWords = row === undefined ? '' : metricName(row.metric).toLowerCase();
        return (
          <li
            key={entry.rolloutId}
            className={styles.entry}
            data-testid="ledger-row"
            data-state={entry.state}
          >
            <div className={styles.line}>
              <button
                type="button"
                className={styles.open}
                aria-expanded={isOpen}
                onClick={() => onShow(isOpen ? '' : entry.rolloutId)}
              >
                <ChevronRight size={14} aria-hidden="true" />
                <span>{entry.title}</span>
              </button>
              <span className={styles.when}>
                {entry.regimeName === '' ? 'no regime' : entry.regimeName}
                {now !== null && (
                  <>
                    {' · '}
                    <time title={formatFullTime(entry.endedAt)}>{formatAgo(entry.endedAt, now)}</time>
                  </>
                )}
                {entry.approvedBy !== '' && ` · ${entry.approvedBy}`}
              </span>
              <dl className={styles.numbers}>
                <div>
                  <dt>predicted {metricWords}</dt>
                  <dd data-testid="ledger-predicted">
                    {row === undefined ? '–' : formatChange(row.predictedChange)}
                    <small>
                      {row === undefined ? '' : formatChangeRange(row.predictedLow, row.predictedHigh)}
                    </small>
                  </dd>
                </div>
                <div>
                  <dt>realised</dt>
                  <dd data-testid="ledger-realised">
                    {formatChange(row?.realisedChange ?? null)}
                    <small>
                      {row?.realisedLow == null ? '' : formatChangeRange(row.realisedLow, row.realisedHigh)}
                    </small>
                  </dd>
                </div>
              </dl>
              <VerdictMark entry={entry} />
              <span className={styles.action}>
                {rollout !== undefined && entry.rolloutId !== cardRolloutId && <RollBack rollout={rollout} />}
              </span>
            </div>
            {isOpen && (
              <div className={styles.details}>
                <MetricTable
                  caption="Predicted beside realised"
                  rows={entry.rows.map((metric) => ({
                    metric: metric.metric,
                    before: null,
                    predicted: null,
                    predictedChange: {
                      value: metric.predictedChange,
                      low: metric.predictedLow,
                      high: metric.predictedHigh,
                    },
                    realisedChange:
                      metric.realisedChange === null
                        ? null
                        : {
                            value: metric.realisedChange,
                            low: metric.realisedLow ?? metric.realisedChange,
                            high: metric.realisedHigh ?? metric.realisedChange,
                          },
                  }))}
                />
              </div>
            )}
          </li>
        );
      })}
    </ul>
  );
}

const verdictMarks = {
  better: { tone: 'good', Icon: CircleCheck },
  worse: { tone: 'bad', Icon: CircleAlert },
  inconclusive: { tone: 'muted', Icon: CircleMinus },
} as const;

function VerdictMark({ entry }: { readonly entry: LedgerEntry }) {
  const { tone, Icon } = verdictMarks[entry.verdict];
  return (
    <span className={styles.verdict}>
      <span className={styles.mark} data-tone={tone}>
        <Icon size={14} aria-hidden="true" /> {verdictName(entry.verdict)}
      </span>
      <small>{rolloutStateName(entry.state)}</small>
    </span>
  );
}
