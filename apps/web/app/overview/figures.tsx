/**
 * The row of figures over the charts: what is so now, and whether it is within its objective (by shape and word, not by
 * colour alone). Called by the overview; computes no metric.
 */
import { CircleAlert, CircleCheck } from 'lucide-react';
import type { ReactNode } from 'react';
import type { OverviewSummary, Policy } from '../../api.ts';
import {
  DASH,
  formatAgo,
  formatCount,
  formatFactor,
  formatMs,
  formatShare,
  formatTokensPerSecond,
  formatUsd,
} from '../../format.ts';
import styles from './overview.module.css';

interface FiguresProps {
  readonly summary: OverviewSummary | undefined;
  readonly objectives: Policy['objectives'] | null;
  readonly rangeName: string;
  readonly now: number | null;
  /** True where the figures are the last that arrived, not those of now. */
  readonly isStale: boolean;
}

export function Figures({ summary, objectives, rangeName, now, isStale }: FiguresProps) {
  const isQuiet =
    summary !== undefined && summary.requestCount === 0 && summary.outputTokensPerSecond === null;
  const lastStepAt = summary?.lastStepAt ?? null;
  const quietNote =
    isQuiet && lastStepAt !== null && now !== null ? `last step ${formatAgo(lastStepAt, now)}` : 'no traffic';
  return (
    <dl className={styles.figures} data-stale={isStale} aria-label={`Figures of the ${rangeName}`}>
      <Figure
        name="Tokens/s out"
        testId="overview-tokens-per-second"
        value={formatTokensPerSecond(summary?.outputTokensPerSecond ?? null)}
        note={
          summary === undefined
            ? ''
            : isQuiet
              ? quietNote
              : `${formatTokensPerSecond(summary?.inputTokensPerSecond ?? null)} in, ${rangeName}`
        }
      />
      <Figure
        name="TTFT p95"
        testId="overview-ttft-p95"
        value={formatMs(summary?.ttftP95Ms ?? null)}
        note={<AgainstObjective value={summary?.ttftP95Ms ?? null} objective={objectives?.ttftMs ?? null} />}
      />
      <Figure
        name="ITL p95"
        testId="overview-itl-p95"
        value={formatMs(summary?.itlP95Ms ?? null)}
        note={<AgainstObjective value={summary?.itlP95Ms ?? null} objective={objectives?.itlMs ?? null} />}
      />
      <Figure
        name="Cost"
        testId="overview-cost"
        value={formatUsd(summary?.costUsdPerMillionTokens ?? null)}
        unit="/ M tok"
        note={summary === undefined ? '' : `${formatCount(summary.requestCount)} requests, ${rangeName}`}
      />
      <Figure
        name="SLO attainment"
        testId="overview-slo-attainment"
        value={formatShare(summary?.sloAttainment ?? null)}
        note={
          summary !== undefined && summary.errorCount > 0 ? (
            <span className={styles.tone} data-tone="bad">
              <CircleAlert size={13} aria-hidden="true" /> {formatCount(summary.errorCount)} failed
            </span>
          ) : (
            summary !== undefined && 'of requests within objectives'
          )
        }
      />
      <Figure
        name="Running / waiting"
        testId="overview-running"
        value={
          summary === undefined
            ? DASH
            : `${formatCount(summary.runningCount)} / ${formatCount(summary.waitingCount)}`
        }
        note={
          summary === undefined
            ? ''
            : summary.mostRunningCount > 0
              ? `of ${formatCount(summary.mostRunningCount)} that may run`
              : 'no worker'
        }
      />
    </dl>
  );
}

function Figure(props: {
  readonly name: string;
  readonly value: string;
  readonly unit?: string;
  readonly note: ReactNode;
  readonly testId: string;
}) {
  return (
    <div className={styles.figure}>
      <dt>{props.name}</dt>
      <dd className={styles.figureLine}>
        <span className={styles.figureValue} data-testid={props.testId} data-empty={props.value === DASH}>
          {figureParts(props.value)}
        </span>
        {props.unit !== undefined && props.value !== DASH && (
          <span className={styles.figureUnit}> {props.unit}</span>
        )}
      </dd>
      <dd className={styles.note}>{props.note}</dd>
    </div>
  );
}

/** The unit after a figure is set smaller; the words stay those of format.ts. */
function figureParts(text: string): ReactNode {
  const at = text.search(/ (tok\/s|ms|s|%)$/);
  if (at === -1) return text;
  return (
    <>
      {text.slice(0, at)}
      <span className={styles.figureUnit}>{text.slice(at)}</span>
    </>
  );
}

function AgainstObjective(props: { readonly value: number | null; readonly objective: number | null }) {
  const { value, objective } = props;
  if (objective === null) return null;
  if (value === null) return <>objective {formatMs(objective)}</>;
  if (value <= objective) {
    return (
      <span className={styles.tone} data-tone="good">
        <CircleCheck size={13} aria-hidden="true" /> <span>within {formatMs(objective)}</span>
      </span>
    );
  }
  return (
    <span className={styles.tone} data-tone="bad">
      <CircleAlert size={13} aria-hidden="true" />{' '}
      <span>
        {formatFactor(value / objective)} its {formatMs(objective)}
      </span>
    </span>
  );
}
