'use client';
/**
 * The page where a person decides: what runs now, what is proposed, what came of what was decided before. Owns the
 * questions and the selection in the URL; the cards only show and ask to act.
 */
import { useMemo } from 'react';
import type { RolloutState } from '../../api.ts';
import { formatClock } from '../../format.ts';
import { STALE_AFTER_MS, useLedger, usePolicy, useProposals, useRollouts } from '../../frame/queries.ts';
import { useNow } from '../../frame/use-now.ts';
import { useSelection } from '../../frame/use-selection.ts';
import { Teach } from '../teach.tsx';
import { Ledger } from './ledger.tsx';
import { ProposalCard } from './proposal-card.tsx';
import styles from './proposals.module.css';
import { RolloutCard } from './rollout-card.tsx';

export const isRunning = (state: RolloutState): boolean => state === 'warming' || state === 'canary';

export function Proposals() {
  const now = useNow();
  const [selectedProposal, selectProposal] = useSelection('proposal');
  const [selectedRollout, selectRollout] = useSelection('rollout');
  const proposals = useProposals();
  const rollouts = useRollouts();
  const ledger = useLedger();
  const policy = usePolicy().data;
  const open = useMemo(
    () => (proposals.data ?? []).filter((proposal) => proposal.state === 'open'),
    [proposals.data],
  );
  const running = (rollouts.data ?? []).find((rollout) => isRunning(rollout.state));
  const shown = running ?? (rollouts.data ?? []).find((rollout) => rollout.rolloutId === selectedRollout);
  const expandedId = open.some((proposal) => proposal.proposalId === selectedProposal)
    ? selectedProposal
    : (open[0]?.proposalId ?? '');
  const failed = [proposals, rollouts, ledger].find((question) => question.isError);
  const isStale =
    failed !== undefined &&
    now !== null &&
    now - failed.dataUpdatedAt > STALE_AFTER_MS &&
    failed.data !== undefined;
  const isFirst = proposals.data === undefined;
  return (
    <div className={styles.page}>
      <h1>Proposals</h1>
      {isStale && (
        <p className={styles.error}>
          Stands at {formatClock(failed.dataUpdatedAt)}: {failed.error?.message}
        </p>
      )}
      {shown !== undefined && (
        <RolloutCard
          rollout={shown}
          proposal={proposals.data?.find(({ proposalId }) => proposalId === shown.proposalId)}
          guardRatio={policy?.canary.itlGuardRatio ?? null}
          now={now}
          onClose={isRunning(shown.state) ? null : () => selectRollout('')}
        />
      )}
      <section className={styles.section} data-stale={isStale} aria-labelledby="open-proposals">
        <h2 id="open-proposals">
          Open <span className={styles.count}>{isFirst ? '' : open.length}</span>
        </h2>
        {isFirst ? (
          <div className={styles.skeleton}>{failed?.error?.message}</div>
        ) : open.length === 0 ? (
          <Teach
            title="No open proposal"
            text="The optimizer proposes another execution path when it predicts fewer device ms per request for the traffic it saw, within the ITL objective. It needs a minute or two of traffic; the demo has two phases that want different paths."
            command="npx variator replay --demo"
          />
        ) : (
          open.map((proposal) => (
            <ProposalCard
              key={proposal.proposalId}
              proposal={proposal}
              history={(ledger.data ?? []).filter(
                ({ toPathId, regimeName }) =>
                  toPathId === proposal.toPathId && regimeName === proposal.evidence.regimeName,
              )}
              policy={policy}
              now={now}
              isExpanded={proposal.proposalId === expandedId}
              onExpand={() => selectProposal(proposal.proposalId)}
              onApproved={selectRollout}
              blockedBy={
                running === undefined ? '' : 'A rollout is running; the next one can start when it has ended.'
              }
            />
          ))
        )}
      </section>
      <section className={styles.section} data-stale={isStale} aria-labelledby="ledger">
        <h2 id="ledger">
          Ledger <span className={styles.count}>predicted beside realised</span>
        </h2>
        <Ledger
          entries={ledger.data}
          rollouts={rollouts.data ?? []}
          openRolloutId={selectedRollout}
          cardRolloutId={shown?.rolloutId ?? ''}
          onShow={selectRollout}
          now={now}
        />
      </section>
    </div>
  );
}
