/** A proposal as data: made by propose.ts, stored and judged by the control plane, read by people. */
import type { ExecutionPath, PathChange } from '@variator/kernels/execution-path';
import type { Aim, EarlierGaps } from './canary-judge.ts';

/** A predicted value with its 90 % interval. */
export interface Estimate {
  readonly value: number;
  readonly low: number;
  readonly high: number;
}

/** What replaying a window's arrivals through the scheduler with a fit predicts (or what was measured). */
export interface Outcome {
  readonly deviceMsPerRequest: number;
  readonly tokensPerSecond: number;
  readonly ttftP50Ms: number;
  readonly ttftP95Ms: number;
  readonly itlP50Ms: number;
  readonly itlP99Ms: number;
  readonly costUsdPerMillionTokens: number;
}

export type MetricName = keyof Outcome;

export interface PredictedMetric {
  readonly metric: MetricName;
  /** Under the incumbent path. */
  readonly now: Estimate;
  /** Under the proposed path. */
  readonly predicted: Estimate;
  /** predicted / now - 1. */
  readonly change: Estimate;
}

/** A path that the search replayed on the whole window, beside the one it proposes; the incumbent changes nothing. */
export interface ConsideredPath {
  readonly changes: readonly PathChange[];
  readonly metrics: readonly {
    readonly metric: MetricName;
    readonly value: number;
    /** 90 %; null where the path was replayed once and not drawn with error. */
    readonly interval: { readonly low: number; readonly high: number } | null;
  }[];
  /** Likelier than not at most 1 % of its gaps are late, and it finishes what the incumbent finishes. */
  readonly keepsObjectives: boolean;
}

/** So many paths go with a proposal. */
export const MOST_CONSIDERED = 12;

/** What the service sends; the control plane adds id, state and times. */
export interface ProposalDraft {
  readonly workerId: string;
  readonly from: ExecutionPath;
  readonly to: ExecutionPath;
  readonly changes: readonly PathChange[];
  /** What its canary is judged by. */
  readonly aim: Aim;
  /** The effect, for people: "Raise the token budget to 512: 14 % fewer device ms per request (9 to 18 %)". */
  readonly title: string;
  /** Why, in sentences with the numbers that decided. */
  readonly reason: string;
  readonly metrics: readonly PredictedMetric[];
  readonly evidence: {
    readonly windowStartedAt: number;
    readonly windowEndedAt: number;
    readonly requestCount: number;
    readonly stepCount: number;
    readonly regimeId: string;
    readonly regimeName: string;
    readonly fitIds: readonly string[];
    /** The incumbent first, then the cheapest; absent in proposals that are older than it. */
    readonly considered?: readonly ConsideredPath[];
    /** log(device ms per request, proposed / incumbent) as replayed; `metrics` say what is believed of it. */
    readonly replayedLogCost?: number;
    /** log(answers within their objectives, proposed / incumbent) as replayed, where they are what is aimed at. */
    readonly replayedLogGoodAnswers?: number;
    /** Of the proposed path's gaps, where it was live in this regime before. */
    readonly earlierGaps?: EarlierGaps;
  };
}

/** More answers within their objectives may cost so much of their gain in device ms, but no more than a quarter more device ms. */
const GOOD_ANSWERS_SHARE = 0.5;
const MOST_FOR_GOOD_ANSWERS = Math.log(1.25);

/** Log ratio of device ms that a proposal's canary may cost: who approved it was told so. */
export function approvedLogCostOf({
  aim,
  metrics,
  evidence,
}: Pick<ProposalDraft, 'aim' | 'metrics' | 'evidence'>): number {
  switch (aim) {
    case 'deviceMs':
      return 0;
    case 'itl': {
      const cost = metrics.find(({ metric }) => metric === 'deviceMsPerRequest');
      return Math.log1p(Math.max(0, cost?.change.high ?? 0));
    }
    case 'goodAnswers':
      return logCostForGoodAnswers(evidence.replayedLogGoodAnswers ?? 0);
  }
}

export const logCostForGoodAnswers = (logGoodAnswers: number): number =>
  Math.min(MOST_FOR_GOOD_ANSWERS, GOOD_ANSWERS_SHARE * Math.max(0, logGoodAnswers));
