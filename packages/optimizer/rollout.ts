/**
 * The life of a rollout as a reducer: its state is the fold of its events, so a restart resumes it. Called by the control
 * plane, which stores the events and acts; a rollout never acts by itself and asks no clock.
 *
 *                                      better
 *   warming --checked--> canary ---------------------> live
 *      |                   |  \                          |
 *      | fault, tokens     |   \ worse, ITL guard,       | a person
 *      | that differ       |    \ a person, kill switch  v
 *      v                   |     `------------------> rolledBack
 *    failed <--- fault ----+
 *                          `-- plan ran out, inconclusive --> kept (the incumbent stays)
 */
import {
  type Confidence,
  type JudgingPlan,
  judgeCanary,
  type PairResult,
  type Verdict,
} from './canary-judge.ts';
import type { LateGaps } from './late-gaps.ts';

export type RolloutState = 'warming' | 'canary' | 'live' | 'rolledBack' | 'kept' | 'failed';

export interface RolloutProgress {
  readonly state: RolloutState;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly approvedBy: string;
  readonly judgingPlan: JudgingPlan;
  readonly prepareMs: number | null;
  readonly checkSummary: string;
  readonly pairs: readonly PairResult[];
  /** Blocks that ran but had too little to compare. */
  readonly skippedPairCount: number;
  readonly confidence: Confidence | null;
  readonly itlConfidence: Confidence | null;
  readonly verdict: Verdict | null;
  /** It failed, and not because something around it ended. */
  readonly isPathsFault: boolean;
  /** Why it is in this state, for people. */
  readonly message: string;
}

export type RolloutEvent =
  | { readonly kind: 'prepared'; readonly at: number; readonly prepareMs: number }
  /** The equality check passed; the summary says by what. */
  | { readonly kind: 'checked'; readonly at: number; readonly summary: string }
  | { readonly kind: 'pairJudged'; readonly at: number; readonly pair: PairResult }
  /** A pair ran without enough steps to compare. */
  | { readonly kind: 'pairSkipped'; readonly at: number; readonly pairIndex: number }
  /** Every planned block has run. */
  | { readonly kind: 'planEnded'; readonly at: number }
  /** A person or the kill switch. */
  | { readonly kind: 'rolledBack'; readonly at: number; readonly by: string; readonly reason: string }
  /** A fault: a path that cannot be prepared, tokens that differ, a lost worker, a restart in the middle. */
  | {
      readonly kind: 'failed';
      readonly at: number;
      readonly reason: string;
      /** The path's own, as far as anybody can tell: the search keeps away from it. */
      readonly isPathsFault?: boolean;
    };

/** An event that this state cannot take; a broken invariant of the driver. */
export class RolloutError extends Error {
  override readonly name = 'RolloutError';
}

export function beginRollout(start: {
  readonly at: number;
  readonly approvedBy: string;
  readonly judgingPlan: JudgingPlan;
}): RolloutProgress {
  return {
    state: 'warming',
    startedAt: start.at,
    endedAt: null,
    approvedBy: start.approvedBy,
    judgingPlan: start.judgingPlan,
    prepareMs: null,
    checkSummary: '',
    pairs: [],
    skippedPairCount: 0,
    confidence: null,
    itlConfidence: null,
    verdict: null,
    isPathsFault: false,
    message: 'Preparing the path and checking its tokens.',
  };
}

/** True when no event but a person's rollback of a live path can change it. */
export const hasEnded = (progress: RolloutProgress): boolean =>
  progress.state !== 'warming' && progress.state !== 'canary';

/** A person, the kill switch or a change of the workload ended the canary before it said anything. */
export const isCutShort = ({ state, verdict }: RolloutProgress): boolean =>
  state === 'rolledBack' && verdict === 'inconclusive';

/** @throws RolloutError for an event that the state cannot take; what arrives late after an end changes nothing */
export function advance(progress: RolloutProgress, event: RolloutEvent): RolloutProgress {
  if (event.kind === 'rolledBack') return rollBack(progress, event);
  if (hasEnded(progress)) return progress;
  switch (event.kind) {
    case 'failed':
      return {
        ...progress,
        state: 'failed',
        endedAt: event.at,
        message: event.reason,
        isPathsFault: event.isPathsFault ?? false,
      };
    case 'prepared':
      expectState(progress, event, 'warming');
      return { ...progress, prepareMs: event.prepareMs };
    case 'checked':
      expectState(progress, event, 'warming');
      return {
        ...progress,
        state: 'canary',
        checkSummary: event.summary,
        message: 'Alternating blocks of both paths on live traffic.',
      };
    case 'pairJudged':
      expectState(progress, event, 'canary');
      return judged({ ...progress, pairs: [...progress.pairs, event.pair] }, event.at);
    case 'pairSkipped':
      expectState(progress, event, 'canary');
      return { ...progress, skippedPairCount: progress.skippedPairCount + 1 };
    case 'planEnded':
      expectState(progress, event, 'canary');
      return {
        ...progress,
        state: 'kept',
        endedAt: event.at,
        verdict: 'inconclusive',
        message: keptMessage(progress),
      };
  }
}

/** The state after these events, in order. */
export const foldRollout = (begin: RolloutProgress, events: readonly RolloutEvent[]): RolloutProgress =>
  events.reduce(advance, begin);

function judged(progress: RolloutProgress, at: number): RolloutProgress {
  const judgement = judgeCanary(progress.pairs, progress.judgingPlan);
  const { confidence, itlConfidence, verdict } = judgement;
  const seen = { ...progress, confidence, itlConfidence };
  const cost = confidence === null ? '' : ` Device ms per unit of work: ${inWords(confidence)}.`;
  const gaps = itlConfidence === null ? '' : ` ITL p99: ${inWords(itlConfidence)}.`;
  if (judgement.isGuardTripped) {
    const message = `The ITL guard stopped it: p95 above its limit in two pairs running.${gaps}`;
    return { ...seen, state: 'rolledBack', endedAt: at, verdict, message };
  }
  if (verdict === 'better') {
    const late = lateInWords(judgement.gaps, progress.judgingPlan);
    const message = `Better.${cost}${approvedInWords(progress.judgingPlan)}${gaps}${late}`;
    return { ...seen, state: 'live', endedAt: at, verdict, message };
  }
  if (verdict === 'worse') {
    return { ...seen, state: 'rolledBack', endedAt: at, verdict, message: `Worse.${cost}${gaps}` };
  }
  return { ...seen, message: `After ${progress.pairs.length} pairs.${cost}` };
}

function rollBack(
  progress: RolloutProgress,
  event: Extract<RolloutEvent, { kind: 'rolledBack' }>,
): RolloutProgress {
  if (hasEnded(progress) && progress.state !== 'live') return progress;
  return {
    ...progress,
    state: 'rolledBack',
    endedAt: event.at,
    verdict: progress.verdict ?? 'inconclusive',
    message: `Rolled back by ${event.by}: ${event.reason}`,
  };
}

function keptMessage(progress: RolloutProgress): string {
  const count = progress.pairs.length;
  if (count < progress.judgingPlan.leastPairCount) {
    return `Not enough traffic to compare: ${count} of ${progress.skippedPairCount + count} pairs had the steps. The incumbent stays.`;
  }
  const cost = progress.confidence === null ? '' : ` (device ms ${inWords(progress.confidence)})`;
  return `No clear difference after ${count} pairs${cost}. The incumbent stays.`;
}

/** How it is known that the objective is kept, and from where. */
function lateInWords(fresh: LateGaps, { itlObjectiveMs, earlierGaps }: JudgingPlan): string {
  if (fresh.count === 0) return '';
  const share = ({ lateCount, count }: LateGaps): string => `${((100 * lateCount) / count).toFixed(1)} %`;
  const before =
    earlierGaps === undefined
      ? ''
      : `, ${share(earlierGaps)} in ${earlierGaps.canaryCount === 1 ? 'a canary' : `${earlierGaps.canaryCount} canaries`} of this workload before`;
  return ` Gaps longer than ${itlObjectiveMs} ms: ${share(fresh)}${before}.`;
}

/** Why a path that may cost more is called better. */
function approvedInWords({ aim, approvedLogCost }: JudgingPlan): string {
  if (aim !== 'goodAnswers') return '';
  return ` Up to ${(100 * Math.expm1(approvedLogCost)).toFixed(1)} % more were approved, for more answers within their objectives.`;
}

/** `−9.1 % (−12.0 to −6.0 %)` of log ratios, with the dashboard's minus sign. */
function inWords(confidence: Confidence): string {
  const percent = (log: number): string => {
    const value = (Math.exp(log) - 1) * 100;
    return `${value > 0 ? '+' : ''}${value.toFixed(1).replace('-', '−')}`;
  };
  return `${percent(confidence.mean)} % (${percent(confidence.low)} to ${percent(confidence.high)} %)`;
}

function expectState(progress: RolloutProgress, event: RolloutEvent, state: RolloutState): void {
  if (progress.state !== state) {
    throw new RolloutError(
      `A rollout that is ${progress.state} cannot take "${event.kind}"; only ${state} can.`,
    );
  }
}
