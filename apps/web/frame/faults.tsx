'use client';
/**
 * One line under the top bar for each thing that is missing: the gateway, telemetry, a worker that can serve, dropped
 * rows. Absent while all is well. Names the thing, the reason and the next step.
 */
import { CircleAlert, TriangleAlert } from 'lucide-react';
import { formatClock, formatCount } from '../format.ts';
import styles from './frame.module.css';
import { STALE_AFTER_MS, useKillSwitch, useSummary } from './queries.ts';
import { useTimeRange } from './time-range.ts';
import { useNow } from './use-now.ts';

export function Faults() {
  const now = useNow();
  const { data, error, isError, dataUpdatedAt } = useSummary(useTimeRange());
  const killSwitch = useKillSwitch().data;
  const lines: { readonly tone: 'bad' | 'warn'; readonly text: string }[] = [];
  if (isError && now !== null && now - dataUpdatedAt > STALE_AFTER_MS) {
    const kept = dataUpdatedAt > 0 ? ' What you see is the last that arrived.' : '';
    lines.push({ tone: 'bad', text: `${sentence(error.message)}${kept} Start it with "npm start".` });
  } else if (data !== undefined) {
    if (!data.isReady)
      lines.push({ tone: 'bad', text: `Requests are not served: ${sentence(data.unreadyReason)}` });
    if (data.telemetryFault !== '') {
      lines.push({
        tone: 'warn',
        text: `Telemetry is missing: ${sentence(data.telemetryFault)} Requests go on; charts keep the last data.`,
      });
    }
    if (data.droppedRowCount > 0) {
      lines.push({
        tone: 'warn',
        text: `${formatCount(data.droppedRowCount)} telemetry rows were dropped since the gateway started; sums of this time are too low.`,
      });
    }
    if (killSwitch?.isOn && killSwitch.changedAt !== null) {
      lines.push({
        tone: 'warn',
        text: `Rollouts are stopped since ${formatClock(killSwitch.changedAt)} by ${killSwitch.changedBy}: the kill switch is on.`,
      });
    }
  }
  return (
    <div className={styles.faults} role="status" aria-live="polite">
      {lines.map(({ tone, text }) => (
        <p key={text} className={styles.fault} data-tone={tone}>
          {tone === 'bad' ? <CircleAlert size={15} /> : <TriangleAlert size={15} />}
          <span>{text}</span>
        </p>
      ))}
    </div>
  );
}

const sentence = (text: string): string => (/[.!?]$/.test(text.trim()) ? text.trim() : `${text.trim()}.`);
