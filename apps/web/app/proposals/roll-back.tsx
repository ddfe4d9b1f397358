'use client';
/** The way back from a rollout, one click, where the control plane says that there is one. */
import { useMutation } from '@tanstack/react-query';
import { Undo2 } from 'lucide-react';
import { queryClient, type RolloutView, trpc } from '../../api.ts';
import styles from './proposals.module.css';

export function RollBack({ rollout }: { readonly rollout: RolloutView }) {
  const rollBack = useMutation(
    trpc.rollouts.rollBack.mutationOptions({ onSettled: () => queryClient.invalidateQueries() }),
  );
  if (!rollout.canRollBack && rollBack.error === null) return null;
  return (
    <>
      {rollBack.error !== null && <span className={styles.error}>{rollBack.error.message}</span>}
      {rollout.canRollBack && (
        <button
          type="button"
          className={styles.danger}
          data-testid="roll-back"
          disabled={rollBack.isPending}
          onClick={() => rollBack.mutate({ rolloutId: rollout.rolloutId })}
        >
          <Undo2 size={14} aria-hidden="true" />
          {rollBack.isPending ? 'Rolling back' : 'Roll back now'}
        </button>
      )}
    </>
  );
}
