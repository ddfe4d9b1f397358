'use client';
/**
 * One open proposal: its effect, evidence, difference of settings, predicted metrics, reason, what could go wrong and
 * what guards it, and the two decisions. Compact until it is the selected one.
 */
import { useMutation } from '@tanstack/react-query';
import { ArrowRight, Check, Play, X } from 'lucide-react';
import { type LedgerEntry, type Policy, type Proposal, queryClient, trpc } from '../../api.ts';
import { MetricTable } from '../../charts/metric-table.tsx';
import { WhatIf } from '../../charts/what-if.tsx';
import { formatAge, formatAgo, formatCount, formatFullTime, formatId } from '../../format.ts';
import { settingName, settingValue, verdictName } from '../../labels.ts';
import styles from './proposals.module.css';
import { risksOf } from './risks.ts';

interface ProposalCardProps {
  readonly proposal: Proposal;
  /** What the same path came to in the same regime before. */
  readonly history: readonly LedgerEntry[];
  readonly policy: Policy | undefined;
  readonly now: number | null;
  readonly isExpanded: boolean;
  readonly onExpand: () => void;
  readonly onApproved: (rolloutId: string) => void;
  readonly blockedBy: string;
}

export function ProposalCard(props: ProposalCardProps) {
  const { proposal, policy, now } = props;
  const { evidence } = proposal;
  const regime = evidence.regimeName === '' ? 'no regime marked' : evidence.regimeName;
  return (
    <article className={styles.card} data-testid="proposal-card" data-proposal-id={proposal.proposalId}>
      <header className={styles.cardHead}>
        <h3 className={styles.title} data-testid="proposal-title">
          {props.isExpanded ? (
            proposal.title
          ) : (
            <button type="button" className={styles.expand} onClick={props.onExpand}>
              {proposal.title}
            </button>
          )}
        </h3>
        <p className={styles.evidence}>
          {regime} · {formatCount(evidence.requestCount)} requests and {formatCount(evidence.stepCount)} steps
          in {formatAge(evidence.windowEndedAt - evidence.windowStartedAt)}
          {now !== null && (
            <>
              {' · '}
              <time title={formatFullTime(proposal.createdAt)}>{formatAgo(proposal.createdAt, now)}</time>
            </>
          )}
        </p>
      </header>
      {props.isExpanded && (
        <>
          <PathDiff proposal={proposal} />
          <div className={styles.columns}>
            <MetricTable
              caption="What is predicted, with 90 % intervals"
              rows={proposal.metrics.map(({ metric, now: before, predicted, change }) => ({
                metric,
                before,
                predicted,
                predictedChange: change,
                realisedChange: null,
              }))}
            />
            <div className={styles.words}>
              <h4>Why</h4>
              <p data-testid="proposal-reason">{proposal.reason}</p>
              <h4>What could go wrong, and what guards it</h4>
              <ul className={styles.risks}>
                {risksOf(proposal, policy).map(({ risk, guard }) => (
                  <li key={risk}>
                    {risk} <span className={styles.guard}>{guard}</span>
                  </li>
                ))}
              </ul>
              {props.history.length > 0 && (
                <>
                  <h4>This path in this regime before</h4>
                  <p>
                    {props.history
                      .slice(0, 5)
                      .map((entry) => verdictName(entry.verdict).toLowerCase())
                      .join(', ')}
                  </p>
                </>
              )}
            </div>
          </div>
          <Alternatives proposal={proposal} policy={policy} />
          <Decision {...props} />
        </>
      )}
    </article>
  );
}

/** What else was replayed, and what it would come to. */
function Alternatives({ proposal, policy }: Pick<ProposalCardProps, 'proposal' | 'policy'>) {
  const count = proposal.evidence.considered?.length ?? 0;
  return (
    <section className={styles.alternatives} aria-label="What if">
      <h4>What if</h4>
      {count >= 2 ? (
        <WhatIf proposal={proposal} objectives={policy?.objectives} />
      ) : (
        <p className={styles.evidence}>
          This proposal says nothing of the other paths that were replayed; the next one will.
        </p>
      )}
    </section>
  );
}

function PathDiff({ proposal }: { readonly proposal: Proposal }) {
  return (
    <div className={styles.diff}>
      <code title={`Path ${proposal.fromPathId}`}>{formatId(proposal.fromPathId)}</code>
      <ArrowRight size={13} aria-label="to" />
      <code title={`Path ${proposal.toPathId}`}>{formatId(proposal.toPathId)}</code>
      <dl>
        {proposal.changes.map(({ setting, from, to }) => (
          <div key={setting}>
            <dt>{settingName(setting)}</dt>
            <dd>
              <del>{settingValue(from)}</del> <ArrowRight size={12} aria-label="to" />{' '}
              <ins>{settingValue(to)}</ins>
            </dd>
          </div>
        ))}
      </dl>
    </div>
  );
}

function Decision({ proposal, policy, onApproved, blockedBy }: ProposalCardProps) {
  const settle = (): Promise<void> => queryClient.invalidateQueries();
  const approve = useMutation(
    trpc.proposals.approve.mutationOptions({
      onSuccess: ({ rolloutId }) => onApproved(rolloutId),
      onSettled: settle,
    }),
  );
  const reject = useMutation(trpc.proposals.reject.mutationOptions({ onSettled: settle }));
  const isBusy = approve.isPending || reject.isPending || approve.isSuccess || reject.isSuccess;
  const observed =
    policy?.autonomy === 'observe'
      ? 'Autonomy is "observe": set it to "oneClick" to let a person start this.'
      : '';
  const obstacle = observed || blockedBy;
  const error = approve.error ?? reject.error;
  return (
    <footer className={styles.decision}>
      <button
        type="button"
        className={styles.primary}
        data-testid="start-canary"
        disabled={isBusy || obstacle !== ''}
        onClick={() => approve.mutate({ proposalId: proposal.proposalId })}
      >
        {approve.isSuccess ? <Check size={14} aria-hidden="true" /> : <Play size={14} aria-hidden="true" />}
        {approve.isPending ? 'Starting' : 'Start canary'}
      </button>
      <button
        type="button"
        className={styles.secondary}
        data-testid="reject-proposal"
        disabled={isBusy}
        onClick={() =>
          reject.mutate({ proposalId: proposal.proposalId, reason: 'Rejected on the dashboard.' })
        }
      >
        <X size={14} aria-hidden="true" />
        Reject
      </button>
      <p className={styles.note} role="status">
        {error === null ? obstacle : <span className={styles.error}>{error.message}</span>}
      </p>
    </footer>
  );
}
