/**
 * Searches the paths around the incumbent by replay and proposes one, or none. Called by the optimizer's service; only
 * proposes. The objective: the least device ms per request among the paths that keep the ITL objective (at most 1 % of the
 * predicted gaps of streamed answers are late) and finish what the incumbent finishes. A share of gaps moves smoothly with a
 * path where the p99 itself jumps between short and long steps. TTFT ranks ties, it does not gate: its error is two to three
 * times the ITL's. A funnel (algorithms.md f): all on a few arrivals, the best on all, the two best drawn with error.
 */
import { diffPaths, type Envelope, type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import type { Objectives } from '@variator/scheduler/sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { Aim } from './canary-judge.ts';
import {
  type ConsideredPath,
  type Estimate,
  MOST_CONSIDERED,
  type PredictedMetric,
  type ProposalDraft,
} from './proposal.ts';
import { type ProposalFacts, proposalReason, proposalTitle } from './proposal-words.ts';
import { type Arrival, type Replay, replay } from './replay.ts';
import { comparedMetrics, DRAW_COUNT, METRICS, resampled, shaken, stepNoise } from './replay-draws.ts';

export interface ProposeQuestion {
  readonly workerId: string;
  readonly incumbent: ExecutionPath;
  readonly candidates: readonly ExecutionPath[];
  /** At most one per kernelsId; a candidate without one is not considered. */
  readonly fits: readonly StepTimeFit[];
  readonly arrivals: readonly Arrival[];
  readonly envelope: Envelope;
  /** The policy's, for requests that state none. */
  readonly objectives: Objectives;
  readonly deviceUsdPerHour: number;
  readonly evidence: Omit<ProposalDraft['evidence'], 'fitIds' | 'requestCount' | 'considered'>;
  readonly seed: number;
}

export interface ProposeAnswer {
  readonly draft: ProposalDraft | null;
  /** What the search found, in a sentence for logs and people. */
  readonly note: string;
}

/** A gain below this is not worth a canary. */
const LEAST_GAIN = 0.02;
/** Late gaps that still keep the objective, of all gaps: what a p99 at the objective leaves. */
export const MOST_LATE_GAPS = 0.01;
/** With this few, it is kept also when the fit is a little off. */
const CLEARLY_KEPT = MOST_LATE_GAPS / 2;
const FIRST_RUNG_ARRIVALS = 80;
const SECOND_RUNG_ARRIVALS = 250;
const SECOND_RUNG_PATHS = 6;
const DRAWN_PATHS = 2;
/** Costs nearer than this are equal, and TTFT decides; TTFTs nearer than theirs are, too. */
const COST_TIE = 0.01;
const TTFT_TIE = 0.15;

interface Replayed {
  readonly path: ExecutionPath;
  readonly fit: StepTimeFit;
  readonly replay: Replay;
}

export function propose(question: ProposeQuestion): ProposeAnswer {
  const fitOf = new Map(question.fits.map((fit) => [fit.kernelsId, fit]));
  const incumbentFit = fitOf.get(kernelsId(question.incumbent));
  if (incumbentFit === undefined) return { draft: null, note: 'The live path has no fit yet.' };
  const arrivals = question.arrivals.slice(-SECOND_RUNG_ARRIVALS).map((arrival) => ({
    ...arrival,
    objectives: arrival.objectives.itlMs > 0 ? arrival.objectives : question.objectives,
  }));
  if (arrivals.length === 0) return { draft: null, note: 'There was no traffic to replay.' };

  const run = (path: ExecutionPath, fit: StepTimeFit, over: readonly Arrival[]): Replayed => ({
    path,
    fit,
    replay: replayOf(question, path, fit, over, question.seed),
  });
  const known = question.candidates.flatMap((path) => {
    const fit = fitOf.get(kernelsId(path));
    return fit === undefined ? [] : [{ path, fit }];
  });
  const few = arrivals.slice(-FIRST_RUNG_ARRIVALS);
  const incumbentOnFew = run(question.incumbent, incumbentFit, few).replay;
  const first = known.map(({ path, fit }) => run(path, fit, few));
  const firstLegal = legalOf(first, incumbentOnFew);
  const second = ranked(firstLegal, question.incumbent)
    .slice(0, SECOND_RUNG_PATHS)
    .map(({ path, fit }) => run(path, fit, arrivals));
  const incumbent = run(question.incumbent, incumbentFit, arrivals);
  const finalists = ranked(legalOf(second, incumbent.replay), question.incumbent).slice(0, DRAWN_PATHS);
  if (finalists.length === 0) {
    return { draft: null, note: `None of ${known.length} paths keeps the ITL objective.` };
  }

  const incumbentDraws = draws(question, incumbent, arrivals);
  const misses = meanLateGapShare(incumbentDraws) > MOST_LATE_GAPS;
  const drawn = finalists
    .map((finalist) => ({ finalist, replays: draws(question, finalist, arrivals) }))
    .map((entry) => ({ ...entry, metrics: comparedMetrics(incumbentDraws, entry.replays) }))
    .filter(({ replays }) => misses || meanLateGapShare(replays) <= MOST_LATE_GAPS);
  for (const { finalist, replays, metrics } of drawn) {
    const isObjectiveRegained = misses && meanLateGapShare(replays) <= CLEARLY_KEPT;
    if (!isWorthIt(metrics, isObjectiveRegained)) continue;
    const facts: ProposalFacts = {
      aim: aimOf(metrics),
      isObjectiveRegained,
      from: question.incumbent,
      to: finalist.path,
      changes: diffPaths(question.incumbent, finalist.path),
      metrics,
      itlObjectiveMs: tightestItlMs(arrivals),
      requestCount: arrivals.length,
      windowMs: question.evidence.windowEndedAt - question.evidence.windowStartedAt,
      regimeName: question.evidence.regimeName,
      fitError: worstError([incumbentFit, finalist.fit]),
      tokensPerStepNow: tokensPerStep(incumbent.replay),
      tokensPerStepThen: tokensPerStep(finalist.replay),
      legalCount: firstLegal.length,
      candidateCount: known.length,
    };
    const draft: ProposalDraft = {
      workerId: question.workerId,
      from: question.incumbent,
      to: finalist.path,
      changes: facts.changes,
      title: proposalTitle(facts),
      reason: proposalReason(facts),
      metrics,
      evidence: {
        ...question.evidence,
        requestCount: arrivals.length,
        fitIds: [...new Set([incumbentFit.fitId, finalist.fit.fitId])],
        considered: consideredPaths(incumbent, second, drawn),
      },
    };
    return { draft, note: draft.title };
  }
  const best = drawn[0];
  const found = best === undefined ? 'none that keeps the ITL objective' : gainInWords(costOf(best.metrics));
  return { draft: null, note: `The best of ${known.length} paths: ${found}.` };
}

/** Whether a canary is worth its while: the cost falls for sure, or gaps that miss their objective come to meet it. */
function isWorthIt(metrics: readonly PredictedMetric[], isObjectiveRegained: boolean): boolean {
  return isObjectiveRegained || aimOf(metrics) === 'deviceMs';
}

/**
 * What these metrics promise, which is what a canary is judged by: fewer device ms where the predicted cost falls by
 * more than the least gain, its whole interval below zero; otherwise shorter gaps.
 */
export function aimOf(metrics: readonly PredictedMetric[]): Aim {
  const cost = costOf(metrics);
  return -cost.value > LEAST_GAIN && cost.high < 0 ? 'deviceMs' : 'itl';
}

/** A path that keeps the ITL objective; where none does and the incumbent misses it too, one with no more late gaps. */
function legalOf(replayed: readonly Replayed[], incumbent: Replay): Replayed[] {
  const lossAllowed = incumbent.unfinishedCount + Math.ceil(0.01 * incumbent.requests.length);
  const complete = replayed.filter(({ replay: candidate }) => candidate.unfinishedCount <= lossAllowed);
  const keeping = complete.filter(({ replay: candidate }) => candidate.lateGapShare <= MOST_LATE_GAPS);
  if (keeping.length > 0 || incumbent.lateGapShare <= MOST_LATE_GAPS) return keeping;
  return complete.filter(({ replay: candidate }) => candidate.lateGapShare <= incumbent.lateGapShare);
}

interface Drawn {
  readonly finalist: Replayed;
  readonly metrics: readonly PredictedMetric[];
}

/** The incumbent, then those of the last rung, the cheapest first; what was drawn with error brings its interval. */
function consideredPaths(
  incumbent: Replayed,
  lastRung: readonly Replayed[],
  drawn: readonly Drawn[],
): ConsideredPath[] {
  const legal = new Set(legalOf([incumbent, ...lastRung], incumbent.replay));
  const byCost = [...lastRung].sort(
    (a, b) => a.replay.outcome.deviceMsPerRequest - b.replay.outcome.deviceMsPerRequest,
  );
  return [incumbent, ...byCost].slice(0, MOST_CONSIDERED).map((considered) => {
    const estimates = drawn.find(({ finalist }) => finalist === considered)?.metrics;
    const ofIncumbent = considered === incumbent ? drawn[0]?.metrics : undefined;
    return {
      changes: diffPaths(incumbent.path, considered.path),
      metrics: METRICS.map((metric) => {
        const drawnAs =
          estimates?.find((one) => one.metric === metric)?.predicted ??
          ofIncumbent?.find((one) => one.metric === metric)?.now;
        if (drawnAs === undefined) {
          return { metric, value: considered.replay.outcome[metric], interval: null };
        }
        const { value, low, high } = drawnAs;
        return { metric, value, interval: { low, high } };
      }),
      keepsObjectives: legal.has(considered),
    };
  });
}

/** Cheapest first, a second change counted as a tie's worth of cost; among equals the shortest TTFT. */
function ranked(replayed: readonly Replayed[], incumbent: ExecutionPath): Replayed[] {
  const keys = ({ path, replay: { outcome } }: Replayed): number[] => [
    grade(outcome.deviceMsPerRequest, COST_TIE) + diffPaths(incumbent, path).length,
    grade(outcome.ttftP95Ms, TTFT_TIE),
  ];
  return replayed
    .map((entry) => ({ entry, keys: keys(entry) }))
    .sort(
      (a, b) => a.keys.map((key, i) => key - (b.keys[i] ?? 0)).find((difference) => difference !== 0) ?? 0,
    )
    .map(({ entry }) => entry);
}

/** Values within a tie of each other mostly get the same grade. */
const grade = (value: number, tie: number): number => Math.round(Math.log(Math.max(1e-9, value)) / tie);

function draws(question: ProposeQuestion, { path, fit }: Replayed, arrivals: readonly Arrival[]): Replay[] {
  return Array.from({ length: DRAW_COUNT }, (_, draw) => {
    const seed = question.seed + 7919 * (draw + 1);
    return replayOf(question, path, shaken(fit, seed), resampled(arrivals, seed), seed, stepNoise(fit));
  });
}

function replayOf(
  { envelope, deviceUsdPerHour }: ProposeQuestion,
  path: ExecutionPath,
  fit: StepTimeFit,
  arrivals: readonly Arrival[],
  seed: number,
  noise = 0,
): Replay {
  return replay({ arrivals, path, fit, envelope, deviceUsdPerHour, seed, noise });
}

const meanLateGapShare = (replays: readonly Replay[]): number =>
  replays.reduce((sum, { lateGapShare }) => sum + lateGapShare, 0) / Math.max(1, replays.length);

const costOf = (metrics: readonly PredictedMetric[]): Estimate =>
  metrics.find(({ metric }) => metric === 'deviceMsPerRequest')?.change ?? { value: 0, low: 0, high: 0 };

const tokensPerStep = ({ steps }: Replay): number =>
  steps.reduce((sum, step) => sum + step.tokenCount, 0) / Math.max(1, steps.length);

const tightestItlMs = (arrivals: readonly Arrival[]): number =>
  Math.min(...arrivals.map((arrival) => arrival.objectives.itlMs));

function worstError(fits: readonly StepTimeFit[]): number | null {
  const errors = fits.map((fit) => fit.heldOutMape);
  return errors.reduce<number | null>(
    (worst, error) => (worst === null || error === null ? null : Math.max(worst, error)),
    0,
  );
}

const gainInWords = ({ value, low, high }: Estimate): string => {
  const percent = (share: number): string => `${share > 0 ? '+' : ''}${(share * 100).toFixed(1)}`;
  return `${percent(value)} % device ms per request (${percent(low)} to ${percent(high)} %)`;
};
