'use client';
/**
 * The kill switch, at the far right of every page: one click ends every canary and refuses new rollouts until somebody
 * allows them again. What is live stays live. The switch itself is the gateway's (control/); it works without this page.
 */
import { useMutation } from '@tanstack/react-query';
import { OctagonX, Play } from 'lucide-react';
import { queryClient, trpc } from '../api.ts';
import { formatClock, formatFullTime } from '../format.ts';
import styles from './frame.module.css';
import { useKillSwitch } from './queries.ts';

export function KillSwitch() {
  const { data } = useKillSwitch();
  const set = useMutation(
    trpc.rollouts.setKillSwitch.mutationOptions({ onSettled: () => queryClient.invalidateQueries() }),
  );
  if (data === undefined) return null;
  const { isOn, changedAt, changedBy } = data;
  return (
    <button
      type="button"
      className={styles.kill}
      data-testid="kill-switch"
      data-on={isOn}
      disabled={set.isPending}
      title={
        set.error !== null
          ? `Not done: ${set.error.message}`
          : isOn && changedAt !== null
            ? `On since ${formatFullTime(changedAt)}, by ${changedBy}. Click to allow rollouts again.`
            : 'Kill switch: ends every canary now and refuses new rollouts'
      }
      onClick={() => set.mutate({ isOn: !isOn, reason: 'from the dashboard' })}
    >
      {isOn ? <Play size={14} aria-hidden="true" /> : <OctagonX size={14} aria-hidden="true" />}
      <span className={styles.killWord}>
        {set.error !== null ? 'Not done, try again' : isOn ? 'Allow rollouts' : 'Stop rollouts'}
      </span>
      {isOn && changedAt !== null && (
        <span className="visually-hidden">, stopped since {formatClock(changedAt)}</span>
      )}
    </button>
  );
}
