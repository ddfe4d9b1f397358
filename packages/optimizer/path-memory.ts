/**
 * What canaries taught, as the ledger keeps it: how far replays are off, what failed, and for each regime how its tried
 * paths compare. A fold over the ledger's entries, never stored twice. Called by the service and propose.ts. Pure.
 */
import { diffPaths, type ExecutionPath, type PathChange, pathId } from '@variator/kernels/execution-path';
import type { EarlierGaps, JudgingPlan, PairResult } from './canary-judge.ts';
import { addGaps, type LateGaps, scaledGaps } from './late-gaps.ts';
import type { PredictedMetric } from './proposal.ts';
import { median, robustSpread } from './quantile.ts';
import type { RolloutState } from './rollout.ts';

/** A mean over a canary's pairs, of a log ratio candidate / control. */
export interface Realised {
  readonly mean: number;
  readonly variance: number;
}

/** log(real / replayed) of a path's ITL p99. */
export interface ItlError extends Realised {
  readonly path: ExecutionPath;
}

/** A path's gaps in one canary, against the objective it was judged by. */
export interface PathGaps extends LateGaps {
  readonly path: ExecutionPath;
  readonly objectiveMs: number;
}

export interface TriedPath {
  readonly deviceKind: string;
  readonly modelHash: string;
  readonly regimeId: string;
  readonly from: ExecutionPath;
  readonly to: ExecutionPath;
  readonly state: RolloutState;
  readonly endedAt: number;
  /** It failed by itself: it could not be prepared, its tokens differ, or its worker was lost. */
  readonly isPathsFault: boolean;
  /** Ended from outside before it said anything: the workload had changed, or somebody stopped it. Absent in older entries. */
  readonly isCutShort?: boolean;
  /** Of device ms per unit of work; null where too little was compared. */
  readonly cost: Realised | null;
  /** Log ratio of device ms per request as it was replayed, before shrinking; null where nobody replayed it. */
  readonly replayedLogCost: number | null;
  /** Of both sides; none where no gaps were compared, absent in entries that are older than it. */
  readonly itlErrors?: readonly ItlError[];
  /** Of both sides; absent in entries that are older than it. */
  readonly lateGaps?: readonly PathGaps[];
}

/** Spread of log(replayed / realised) before any canary, and how many canaries' worth of belief stands behind it. */
const FIRST_SPREAD = 0.06;
const FIRST_COUNT = 4;
const LEAST_SPREAD = 0.02;
/** The same of ITL p99: tails are foretold less well than means. */
const FIRST_ITL_SPREAD = 0.1;
const LEAST_ITL_SPREAD = 0.04;
/** Of one pair's log ratio. */
const USUAL_PAIR_SPREAD = 0.05;
const LATELY_MS = 30 * 60_000;
/** A failure may have been the machine's: it is believed for a day. */
const FAULT_MS = 24 * 3_600_000;

/** Root mean square of (replayed - realised), log cost; what the canary itself could not resolve is not held against it. */
export function replaySpread(tried: readonly TriedPath[]): number {
  let sum = FIRST_COUNT * FIRST_SPREAD ** 2;
  let count = FIRST_COUNT;
  for (const { cost, replayedLogCost } of tried) {
    if (cost === null || replayedLogCost === null) continue;
    sum += Math.max(0, (replayedLogCost - cost.mean) ** 2 - cost.variance);
    count += 1;
  }
  return Math.max(LEAST_SPREAD, Math.sqrt(sum / count));
}

/** Root mean square of log(real / replayed) ITL p99 over all sides of canaries. */
export function itlSpread(tried: readonly TriedPath[]): number {
  const errors = tried.flatMap(({ itlErrors = [] }) => itlErrors);
  const sum = errors.reduce((total, { mean, variance }) => total + Math.max(0, mean ** 2 - variance), 0);
  const first = FIRST_COUNT * FIRST_ITL_SPREAD ** 2;
  return Math.max(LEAST_ITL_SPREAD, Math.sqrt((first + sum) / (FIRST_COUNT + errors.length)));
}

/** What a canary's pairs say of the ITL p99 that its proposal had foretold for both sides. */
export function itlErrorsOf(
  { from, to }: Pick<TriedPath, 'from' | 'to'>,
  predicted: readonly PredictedMetric[],
  pairs: readonly PairResult[],
): ItlError[] {
  const itl = predicted.find(({ metric }) => metric === 'itlP99Ms');
  if (itl === undefined) return [];
  const compared = pairs.filter((pair) => pair.controlItlP99Ms > 0 && pair.candidateItlP99Ms > 0);
  const sides = [
    { path: from, replayedMs: itl.now.value, realMs: compared.map((pair) => pair.controlItlP99Ms) },
    { path: to, replayedMs: itl.predicted.value, realMs: compared.map((pair) => pair.candidateItlP99Ms) },
  ];
  return sides.flatMap(({ path, replayedMs, realMs }) => {
    if (replayedMs <= 0) return [];
    const realised = realisedOf(realMs.map((ms) => Math.log(ms / replayedMs)));
    return realised === null ? [] : [{ path, ...realised }];
  });
}

/**
 * Both sides' gaps over the pairs whose other side kept the objective: what works off the queue that another path left says less of
 * itself. None where the plan had no objective.
 */
export function lateGapsOfSides(
  { from, to }: Pick<TriedPath, 'from' | 'to'>,
  { itlObjectiveMs: objectiveMs }: JudgingPlan,
  pairs: readonly PairResult[],
): PathGaps[] {
  const keeps = (itlP99Ms: number): boolean => itlP99Ms > 0 && itlP99Ms <= objectiveMs;
  const sides = [
    {
      path: from,
      gaps: pairs.flatMap((pair) => (keeps(pair.candidateItlP99Ms) ? (pair.controlGaps ?? []) : [])),
    },
    {
      path: to,
      gaps: pairs.flatMap((pair) => (keeps(pair.controlItlP99Ms) ? (pair.candidateGaps ?? []) : [])),
    },
  ];
  return sides
    .map(({ path, gaps }): PathGaps => ({ path, objectiveMs, ...addGaps(gaps) }))
    .filter(({ count }) => count > 0);
}

/** Mean and its variance of a canary's log ratios; null for fewer than two pairs. One wild pair is cut to 3 robust spreads. */
export function realisedOf(logRatios: readonly number[]): Realised | null {
  if (logRatios.length < 2) return null;
  const middle = median(logRatios);
  const reach = 3 * Math.max(robustSpread(logRatios), 1e-6);
  const values = logRatios.map((value) => Math.min(middle + reach, Math.max(middle - reach, value)));
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const squares = values.reduce((sum, value) => sum + (value - mean) ** 2, 0);
  // Few pairs estimate their own spread badly: as if three more at the usual 5 % had been seen.
  const variance = (squares + 3 * USUAL_PAIR_SPREAD ** 2) / (values.length + 2);
  return { mean, variance: variance / values.length };
}

/** The changes that failed, for candidatePaths. */
export const faultyChanges = (tried: readonly TriedPath[], now: number): PathChange[][] =>
  tried
    .filter(({ isPathsFault, endedAt }) => isPathsFault && now - endedAt < FAULT_MS)
    .map(({ from, to }) => diffPaths(from, to));

/** A regime that was merged into another goes on under that one's id: its canaries count there. '' where it was forgotten. */
export const underLivingIds = (
  tried: readonly TriedPath[],
  livingId: (regimeId: string) => string,
): TriedPath[] =>
  tried.map((one) => (one.regimeId === '' ? one : { ...one, regimeId: livingId(one.regimeId) }));

export const inRegime = (tried: readonly TriedPath[], regimeId: string): TriedPath[] =>
  regimeId === '' ? [] : tried.filter((one) => one.regimeId === regimeId);

/**
 * The path that a regime ended with: the last one promoted in it, unless a later canary of the regime went live from it or
 * a person took it back; null where none was.
 */
export function bestKnown(ofRegime: readonly TriedPath[]): ExecutionPath | null {
  const byTime = [...ofRegime].sort((a, b) => a.endedAt - b.endedAt);
  return byTime.findLast(({ state }) => state === 'live')?.to ?? null;
}

/** Gaps seen so long ago count half; after so many days none. */
const GAPS_HALF_LIFE_MS = 24 * 3_600_000;
const GAPS_FORGOTTEN_MS = 7 * 24 * 3_600_000;
/** However many are known, they weigh like so many: a path that has changed is found out within two or three blocks. */
const MOST_EARLIER_GAPS = 1000;

/**
 * What canaries of this regime saw of a path's gaps, of this objective and lately; null for one that was never live in it. All
 * canaries count that it ran in, lost ones too.
 */
export function earlierGapsOf(
  ofRegime: readonly TriedPath[],
  path: ExecutionPath,
  objectiveMs: number,
  now: number,
): EarlierGaps | null {
  const id = pathId(path);
  const wasLive = ofRegime.some(
    ({ from, to, state }) => pathId(from) === id || (state === 'live' && pathId(to) === id),
  );
  if (!wasLive) return null;
  const seen = ofRegime.flatMap(({ lateGaps = [], endedAt }) =>
    now - endedAt > GAPS_FORGOTTEN_MS
      ? []
      : lateGaps
          .filter((gaps) => gaps.objectiveMs === objectiveMs && pathId(gaps.path) === id)
          .map((gaps) => ({ endedAt, gaps: scaledGaps(gaps, 0.5 ** ((now - endedAt) / GAPS_HALF_LIFE_MS)) })),
  );
  if (seen.length === 0) return null;
  const all = addGaps(seen.map(({ gaps }) => gaps));
  return {
    ...scaledGaps(all, Math.min(1, MOST_EARLIER_GAPS / all.count)),
    objectiveMs,
    canaryCount: seen.length,
    lastAt: Math.max(...seen.map(({ endedAt }) => endedAt)),
  };
}

/**
 * What lost a canary not long ago, as the candidate or as the path that was live, is known: another one would say the same. One that
 * was cut short has lost nothing.
 */
export function isTriedLately(ofRegime: readonly TriedPath[], path: ExecutionPath, now: number): boolean {
  const id = pathId(path);
  return ofRegime.some(
    ({ from, to, state, endedAt, isCutShort = false }) =>
      !isCutShort && now - endedAt < LATELY_MS && pathId(state === 'live' ? from : to) === id,
  );
}
