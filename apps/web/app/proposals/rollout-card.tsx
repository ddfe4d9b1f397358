'use client';
/**
 * One rollout: where it stands, what the equality check found, the paired blocks with the interval closing on a
 * verdict, how far the guard is, how much traffic it saw, and the way back.
 */
import { CircleAlert, CircleCheck, CircleDot, X } from 'lucide-react';
import type { Proposal, RolloutView } from '../../api.ts';
import { PairChart } from '../../charts/pair-chart.tsx';
import {
  formatAge,
  formatChange,
  formatChangeRange,
  formatCount,
  formatFactor,
  formatFullTime,
  formatId,
  formatMs,
} from '../../format.ts';
import { rolloutStateName, verdictName } from '../../labels.ts';
import styles from './proposals.module.css';
import { RollBack } from './roll-back.tsx';
import { useConfidenceTrail } from './use-confidence-trail.ts';

interface RolloutCardProps {
  readonly rollout: RolloutView;
  readonly proposal: Proposal | undefined;
  readonly guardRatio: number | null;
  readonly now: number | null;
  /** null while it runs: what changes live traffic stays in sight. */
  readonly onClose: (() => void) | null;
}

export function RolloutCard({ rollout, proposal, guardRatio, now, onClose }: RolloutCardProps) {
  const trail = useConfidenceTrail(rollout);
  const predicted = proposal?.metrics.find(({ metric }) => metric === 'deviceMsPerRequest')?.change ?? null;
  const { confidence } = rollout;
  const elapsedMs = (rollout.endedAt ?? now ?? rollout.startedAt) - rollout.startedAt;
  const candidateSteps = rollout.pairs.reduce((sum, pair) => sum + pair.candidateStepCount, 0);
  const allSteps = rollout.pairs.reduce((sum, pair) => sum + pair.controlStepCount, candidateSteps);
  return (
    <article
      className={styles.card}
      data-testid="rollout-card"
      data-rollout-id={rollout.rolloutId}
      data-running={rollout.state === 'warming' || rollout.state === 'canary'}
      aria-label="Rollout"
    >
      <header className={styles.cardHead}>
        <div className={styles.headLine}>
          <Steps rollout={rollout} />
          <span className={styles.spring} />
          <RollBack rollout={rollout} />
          {onClose !== null && (
            <button type="button" className={styles.quiet} onClick={onClose} title="Close this rollout">
              <X size={15} aria-hidden="true" />
              <span className="visually-hidden">Close this rollout</span>
            </button>
          )}
        </div>
        <h3 className={styles.title}>{rollout.title}</h3>
        <p className={styles.evidence}>
          <code title={`Path ${rollout.fromPathId}`}>{formatId(rollout.fromPathId)}</code> to{' '}
          <code title={`Path ${rollout.toPathId}`}>{formatId(rollout.toPathId)}</code> on {rollout.workerId},
          started by {rollout.approvedBy === '' ? 'nobody named' : rollout.approvedBy}
          {', '}
          <time title={formatFullTime(rollout.startedAt)}>{formatAge(elapsedMs)}</time>
          {rollout.endedAt === null ? ' so far' : ' in all'}
        </p>
      </header>
      <p className={styles.message} role="status">
        {rollout.message}
      </p>
      <div className={styles.columns}>
        <PairChart
          pairs={rollout.pairs}
          plannedPairCount={rollout.plannedPairCount}
          trail={trail}
          predicted={predicted}
        />
        <dl className={styles.facts}>
          <Fact
            name="Change of cost"
            value={formatChange(confidence === null ? null : ratioChange(confidence.mean))}
          >
            {confidence === null
              ? 'after two pairs'
              : `${formatChangeRange(ratioChange(confidence.low), ratioChange(confidence.high))}${predicted === null ? '' : `, predicted ${formatChange(predicted.value)}`}`}
          </Fact>
          <Guard rollout={rollout} guardRatio={guardRatio} />
          <Fact name="Exposure" value={`${formatCount(candidateSteps)} steps`}>
            {allSteps === 0
              ? 'no judged step yet'
              : `of ${formatCount(allSteps)} judged, in ${rollout.pairs.length} of ${rollout.plannedPairCount} pairs`}
          </Fact>
          <Fact name="Equality check" value={rollout.checkSummary === '' ? '–' : ''}>
            {rollout.checkSummary === '' ? 'not there yet' : rollout.checkSummary}
            {rollout.prepareMs !== null &&
              ` Prepared ${rollout.prepareMs < 1 ? 'at once' : `in ${formatMs(rollout.prepareMs)}`}.`}
          </Fact>
        </dl>
      </div>
    </article>
  );
}

const ratioChange = (logRatio: number): number => Math.expm1(logRatio);

const order = ['warming', 'canary', 'verdict'] as const;
const orderNames = { warming: 'Warming', canary: 'Canary', verdict: 'Verdict' } as const;

function Steps({ rollout }: { readonly rollout: RolloutView }) {
  const at = rollout.state === 'warming' ? 0 : rollout.state === 'canary' ? 1 : 2;
  const outcome =
    at < 2
      ? rolloutStateName(rollout.state)
      : `${rollout.verdict === null ? '' : `${verdictName(rollout.verdict)}: `}${rolloutStateName(rollout.state).toLowerCase()}`;
  const tone = rollout.state === 'live' ? 'good' : rollout.state === 'kept' || at < 2 ? 'muted' : 'bad';
  return (
    <>
      <ol className={styles.steps} aria-label="Progress">
        {order.map((step, index) => (
          <li
            key={step}
            data-at={index < at ? 'past' : index === at ? 'here' : 'ahead'}
            data-tone={index === 2 && at === 2 ? tone : undefined}
            aria-current={index === at ? 'step' : undefined}
          >
            {index < at || (index === 2 && tone === 'good') ? (
              <CircleCheck size={14} aria-hidden="true" />
            ) : index === 2 && tone === 'bad' ? (
              <CircleAlert size={14} aria-hidden="true" />
            ) : (
              <CircleDot size={14} aria-hidden="true" />
            )}
            {index === 2 && at === 2 ? outcome : orderNames[step]}
          </li>
        ))}
      </ol>
      <span className="visually-hidden" data-testid="rollout-state" data-state={rollout.state}>
        {outcome}
      </span>
    </>
  );
}

function Guard({
  rollout,
  guardRatio,
}: {
  readonly rollout: RolloutView;
  readonly guardRatio: number | null;
}) {
  const last = rollout.pairs.at(-1);
  const ratio =
    last !== undefined && last.controlItlP99Ms > 0 ? last.candidateItlP99Ms / last.controlItlP99Ms : null;
  if (ratio === null || guardRatio === null) {
    return (
      <Fact name="ITL guard" value="–">
        {guardRatio === null ? '' : `stops at ${formatFactor(guardRatio)} the old path`}
      </Fact>
    );
  }
  return (
    <Fact name="ITL guard" value={formatFactor(ratio)}>
      <span className={styles.meter} aria-hidden="true" data-tone={ratio > guardRatio ? 'bad' : 'good'}>
        <span style={{ width: `${Math.min(1, ratio / guardRatio) * 100}%` }} />
      </span>
      stops at {formatFactor(guardRatio)} twice running
    </Fact>
  );
}

function Fact(props: { readonly name: string; readonly value: string; readonly children: React.ReactNode }) {
  return (
    <div>
      <dt>{props.name}</dt>
      {props.value !== '' && <dd className={styles.factValue}>{props.value}</dd>}
      <dd className={styles.factNote}>{props.children}</dd>
    </div>
  );
}
