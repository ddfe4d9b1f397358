/** The control plane's nouns as rows and JSON: policy, proposal, rollout, ledger. Stored by control-store.ts. */
import type { PairResult, Verdict } from '@variator/optimizer/canary-judge';
import type { TriedPath } from '@variator/optimizer/path-memory';
import type { MetricName, ProposalDraft } from '@variator/optimizer/proposal';
import type { RolloutState } from '@variator/optimizer/rollout';

/** The judge's and the reducer's own nouns, as the API speaks them. */
export type { PairResult, RolloutState, Verdict };

export type Autonomy = 'observe' | 'oneClick';

export interface Policy {
  readonly autonomy: Autonomy;
  readonly objectives: { readonly ttftMs: number; readonly itlMs: number };
  /** A canary's plan: pairs of one control and one candidate block, in random order inside the pair. */
  readonly canary: {
    readonly blockDurationMs: number;
    readonly leastPairCount: number;
    /** Promoted not before so many; a plan that is shorter promotes with its last pair only. */
    readonly leastPairCountToPromote: number;
    readonly mostPairCount: number;
    /** A block with fewer judged steps is not compared. */
    readonly leastStepsPerBlock: number;
    /** Rolls back by itself when a candidate block's ITL p99 is above this multiple of its control's in two pairs running. */
    readonly itlGuardRatio: number;
  };
  /** Most share of device time that calibration may take, 0..0.02. */
  readonly calibrationShare: number;
  readonly deviceUsdPerHour: number;
}

export type ProposalState = 'open' | 'approved' | 'rejected' | 'superseded' | 'finished';

export interface Proposal extends ProposalDraft {
  readonly proposalId: string;
  readonly createdAt: number;
  readonly state: ProposalState;
  readonly fromPathId: string;
  readonly toPathId: string;
  /** '' before approval. */
  readonly rolloutId: string;
  readonly decidedBy: string;
  readonly decidedAt: number | null;
}

export interface RolloutView {
  readonly rolloutId: string;
  readonly proposalId: string;
  readonly workerId: string;
  readonly title: string;
  readonly fromPathId: string;
  readonly toPathId: string;
  readonly state: RolloutState;
  readonly startedAt: number;
  readonly endedAt: number | null;
  readonly approvedBy: string;
  readonly prepareMs: number | null;
  /** What the equality check found, for people; '' before it. */
  readonly checkSummary: string;
  readonly pairs: readonly PairResult[];
  readonly plannedPairCount: number;
  /** Confidence sequence on the mean log cost ratio; null before two pairs. */
  readonly confidence: { readonly mean: number; readonly low: number; readonly high: number } | null;
  readonly verdict: Verdict | null;
  /** Why it is in this state, for people. */
  readonly message: string;
  readonly canRollBack: boolean;
}

export interface LedgerEntry {
  readonly rolloutId: string;
  readonly proposalId: string;
  readonly title: string;
  readonly fromPathId: string;
  readonly toPathId: string;
  readonly regimeName: string;
  readonly endedAt: number;
  readonly verdict: Verdict;
  readonly state: RolloutState;
  readonly approvedBy: string;
  /** What the search learns from it; absent in entries that are older than this. */
  readonly tried?: TriedPath;
  readonly rows: readonly {
    readonly metric: MetricName;
    readonly predictedChange: number;
    readonly predictedLow: number;
    readonly predictedHigh: number;
    /** null where the canary cannot measure it. */
    readonly realisedChange: number | null;
    readonly realisedLow: number | null;
    readonly realisedHigh: number | null;
  }[];
}
