/**
 * A rollout as the control database keeps it: an opening, then the events of the optimizer's reducer. Folds the rows and
 * turns the result into what people read (view, ledger entry). Pure; called by open-control.ts and rollout-driver.ts.
 */
import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import { costsAtEqualLoad, type JudgingPlan } from '@variator/optimizer/canary-judge';
import { itlErrorsOf, lateGapsOfSides, realisedOf, type TriedPath } from '@variator/optimizer/path-memory';
import {
  approvedLogCostOf,
  type MetricName,
  type PredictedMetric,
  type ProposalDraft,
} from '@variator/optimizer/proposal';
import {
  beginRollout,
  foldRollout,
  isCutShort,
  type RolloutEvent,
  type RolloutProgress,
} from '@variator/optimizer/rollout';
import type { LedgerEntry, Policy, RolloutView } from './control-types.ts';

/** Everything the rollout was approved with; later changes of policy or proposal do not reach it. */
export interface RolloutOpening {
  readonly kind: 'begun';
  readonly at: number;
  readonly rolloutId: string;
  readonly proposalId: string;
  readonly workerId: string;
  readonly title: string;
  readonly regimeName: string;
  /** What the search learns by; absent in rollouts that are older than this. */
  readonly regimeId?: string;
  readonly deviceKind?: string;
  readonly modelHash?: string;
  readonly replayedLogCost?: number | null;
  readonly from: ExecutionPath;
  readonly to: ExecutionPath;
  readonly approvedBy: string;
  readonly judgingPlan: JudgingPlan;
  readonly blockDurationMs: number;
  readonly leastStepsPerBlock: number;
  /** Draws the order of blocks and the check's seeds. */
  readonly seed: number;
  readonly predicted: readonly PredictedMetric[];
  /** The rollout that had made `from` the worker's live path; '' where none had. */
  readonly incumbentRolloutId: string;
}

export interface RolloutEventRow {
  readonly at: number;
  readonly event: RolloutOpening | RolloutEvent;
}

/** The last promoted path of a worker, and the rollout that promoted it ('' where a person set it). */
export interface LivePath {
  readonly workerId: string;
  readonly path: ExecutionPath;
  readonly rolloutId: string;
  readonly promotedAt: number;
}

export interface RolloutRecord {
  readonly opening: RolloutOpening;
  readonly progress: RolloutProgress;
  readonly eventCount: number;
}

export function openRecord(opening: RolloutOpening): RolloutRecord {
  const { at, approvedBy, judgingPlan } = opening;
  return { opening, progress: beginRollout({ at, approvedBy, judgingPlan }), eventCount: 1 };
}

/** @throws Error where the rows do not begin with an opening: the table was changed by another hand */
export function foldRecord(rows: readonly RolloutEventRow[]): RolloutRecord {
  const [first, ...rest] = rows.map((row) => row.event);
  if (first?.kind !== 'begun') throw new Error('A rollout must begin with its opening.');
  const events = rest.filter((event) => event.kind !== 'begun');
  const begun = openRecord(first);
  return { ...begun, progress: foldRollout(begun.progress, events), eventCount: rows.length };
}

/**
 * What the canary must show: fewer device ms; or, where that is what was proposed, gaps within the objective (the incumbent misses
 * it, and the way out costs device time) or more answers within their objectives, for no more than was approved.
 */
export function judgingPlanOf(draft: ProposalDraft, policy: Policy): JudgingPlan {
  const { earlierGaps } = draft.evidence;
  return {
    aim: draft.aim,
    leastPairCount: policy.canary.leastPairCount,
    leastPairCountToPromote: policy.canary.leastPairCountToPromote,
    mostPairCount: policy.canary.mostPairCount,
    itlGuardRatio: policy.canary.itlGuardRatio,
    itlObjectiveMs: policy.objectives.itlMs,
    // Of another objective they say nothing.
    ...(earlierGaps?.objectiveMs === policy.objectives.itlMs ? { earlierGaps } : {}),
    approvedLogCost: approvedLogCostOf(draft),
  };
}

export function viewOf({ opening, progress }: RolloutRecord, livePath: LivePath | null): RolloutView {
  const isRunning = progress.state === 'warming' || progress.state === 'canary';
  return {
    rolloutId: opening.rolloutId,
    proposalId: opening.proposalId,
    workerId: opening.workerId,
    title: opening.title,
    fromPathId: pathId(opening.from),
    toPathId: pathId(opening.to),
    state: progress.state,
    startedAt: progress.startedAt,
    endedAt: progress.endedAt,
    approvedBy: progress.approvedBy,
    prepareMs: progress.prepareMs,
    checkSummary: progress.checkSummary,
    pairs: progress.pairs,
    plannedPairCount: progress.judgingPlan.mostPairCount,
    confidence: progress.confidence,
    verdict: progress.verdict,
    message: progress.message,
    // A live path is taken back only while it is the worker's: a later promotion stands on top of it.
    canRollBack: isRunning || (progress.state === 'live' && livePath?.rolloutId === opening.rolloutId),
  };
}

/**
 * Predicted beside realised. The canary measures cost (device ms per unit of work, so also dollars per token) and ITL in
 * pairs; TTFT and throughput it cannot tell from the traffic's own change, so they stay null here (api/ledger.ts adds TTFT
 * before and after to what is live).
 */
export function ledgerEntryOf({ opening, progress }: RolloutRecord): LedgerEntry {
  const cost = changeOf(progress.confidence);
  const itl = changeOf(progress.itlConfidence);
  const realised: Partial<Record<MetricName, typeof cost>> = {
    deviceMsPerRequest: cost,
    costUsdPerMillionTokens: cost,
    itlP99Ms: itl,
  };
  return {
    rolloutId: opening.rolloutId,
    proposalId: opening.proposalId,
    title: opening.title,
    fromPathId: pathId(opening.from),
    toPathId: pathId(opening.to),
    regimeName: opening.regimeName,
    endedAt: progress.endedAt ?? opening.at,
    verdict: progress.verdict ?? 'inconclusive',
    state: progress.state,
    approvedBy: opening.approvedBy,
    tried: triedPathOf(opening, progress),
    rows: opening.predicted.map(({ metric, change }) => ({
      metric,
      predictedChange: change.value,
      predictedLow: change.low,
      predictedHigh: change.high,
      realisedChange: realised[metric]?.mean ?? null,
      realisedLow: realised[metric]?.low ?? null,
      realisedHigh: realised[metric]?.high ?? null,
    })),
  };
}

/** For the search's memory; the confidence sequence is wider than what these pairs say of the mean itself. */
function triedPathOf(opening: RolloutOpening, progress: RolloutProgress): TriedPath {
  return {
    deviceKind: opening.deviceKind ?? '',
    modelHash: opening.modelHash ?? '',
    regimeId: opening.regimeId ?? '',
    from: opening.from,
    to: opening.to,
    state: progress.state,
    endedAt: progress.endedAt ?? opening.at,
    isPathsFault: progress.isPathsFault,
    isCutShort: isCutShort(progress),
    cost: realisedOf(costsAtEqualLoad(progress.pairs)),
    replayedLogCost: opening.replayedLogCost ?? null,
    itlErrors: itlErrorsOf(opening, opening.predicted, progress.pairs),
    lateGaps: lateGapsOfSides(opening, progress.judgingPlan, progress.pairs),
  };
}

/** A log ratio's confidence as changes, -0.1 for ten percent less. */
function changeOf(confidence: RolloutProgress['confidence']) {
  if (confidence === null) return null;
  const { mean, low, high } = confidence;
  return { mean: Math.expm1(mean), low: Math.expm1(low), high: Math.expm1(high) };
}
