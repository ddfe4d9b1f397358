/**
 * Searches the paths around the incumbent by replay and proposes one for a canary, or none. Called by the optimizer's
 * service; only proposes. What replays say is the prior, what earlier canaries of the regime measured corrects it
 * (arm-posterior.ts); a path is proposed only where missing the ITL objective is unlikely. TTFT counts through attainment
 * and does not gate: its error is two to three times the ITL's.
 */
import {
  diffPaths,
  type Envelope,
  type ExecutionPath,
  kernelsId,
  pathId,
} from '@variator/kernels/execution-path';
import type { Objectives } from '@variator/scheduler/sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { type Belief, beliefOf, choose, gainOf, observed, type ReplayedArm } from './arm-posterior.ts';
import type { Aim } from './canary-judge.ts';
import { guessBasis, withGuesses } from './drawn-guesses.ts';
import { type FittedPath, MOST_LATE_GAPS } from './feasible-paths.ts';
import type { ItlKnowledge } from './itl-belief.ts';
import { mean, varianceOf } from './moments.ts';
import {
  bestKnown,
  earlierGapsOf,
  inRegime,
  isTriedLately,
  itlSpread,
  replaySpread,
  type TriedPath,
} from './path-memory.ts';
import {
  type ConsideredPath,
  type Estimate,
  logCostForGoodAnswers,
  MOST_CONSIDERED,
  type PredictedMetric,
  type ProposalDraft,
} from './proposal.ts';
import { type ProposalFacts, proposalReason, proposalTitle } from './proposal-words.ts';
import { type Arrival, type Replay, type ReplayQuestion, replay } from './replay.ts';
import { comparedMetrics, DRAW_COUNT, METRICS } from './replay-draws.ts';
import {
  type Finalist,
  type Found,
  legalOf,
  logAttainmentOf,
  MOST_CANARY_RISK,
  type Replayed,
  riskOf,
  searchPaths,
} from './search-paths.ts';
import { seededRandom } from './seeded-random.ts';

export interface ProposeQuestion {
  readonly workerId: string;
  readonly incumbent: ExecutionPath;
  readonly candidates: readonly ExecutionPath[];
  /** At most one per kernelsId; a candidate without one is not considered. */
  readonly fits: readonly StepTimeFit[];
  /** In order of time. */
  readonly arrivals: readonly Arrival[];
  readonly envelope: Envelope;
  /** The policy's, for requests that state none. */
  readonly objectives: Objectives;
  readonly deviceUsdPerHour: number;
  /** The live path's ITL p99 over these arrivals as measured; null where nobody was served. */
  readonly liveItlP99Ms: number | null;
  readonly evidence: Omit<
    ProposalDraft['evidence'],
    'fitIds' | 'requestCount' | 'considered' | 'replayedLogCost' | 'earlierGaps'
  >;
  /** What canaries on such devices taught, of all regimes. */
  readonly tried: readonly TriedPath[];
  /**
   * Predicted gain, as a share of the cost, that is worth somebody's approval, times the chance that the ITL objective is
   * kept. Below 0 it also explores: paths that seem so much worse, as long as finding out is worth it.
   */
  readonly leastGain: number;
  readonly seed: number;
  /** The twin; a test that asks the same twice may remember the answers. */
  readonly simulate?: (question: ReplayQuestion) => Replay;
}

export interface ProposeAnswer {
  readonly draft: ProposalDraft | null;
  /** What the search found, in a sentence for logs and people. */
  readonly note: string;
}

/** With this few late gaps, the objective is kept also when the fit is a little off. */
const CLEARLY_KEPT = MOST_LATE_GAPS / 2;
/** Log share of good requests from which on a path is proposed for them. */
const LEAST_GOOD_ANSWERS = 0.1;
/** Log share of good requests that regaining the ITL objective may cost. */
const MOST_LOST_GOOD = 0.01;
/** Log cost that a second change must be worth. */
const MORE_CHANGES = 0.01;
/** 90 % of a normal, to either side. */
const NORMAL_90 = 1.645;
/** Of a path that nobody replayed now but canaries compared, log cost: nearly nothing is known. */
const UNKNOWN_VARIANCE = 0.3 ** 2;

export function propose(question: ProposeQuestion): ProposeAnswer {
  const fitOf = new Map(question.fits.map((fit) => [fit.kernelsId, fit]));
  const fitted = (path: ExecutionPath): FittedPath[] => {
    const fit = fitOf.get(kernelsId(path));
    return fit === undefined ? [] : [{ path, fit }];
  };
  const [incumbent] = fitted(question.incumbent);
  if (incumbent === undefined) return { draft: null, note: 'The live path has no fit yet.' };
  const arrivals = withGuesses(question.arrivals).map((arrival) => ({
    ...arrival,
    objectives: arrival.objectives.itlMs > 0 ? arrival.objectives : question.objectives,
  }));
  if (arrivals.length === 0) return { draft: null, note: 'There was no traffic to replay.' };

  const ofRegime = inRegime(question.tried, question.evidence.regimeId);
  const now = question.evidence.windowEndedAt;
  const fresh = (path: ExecutionPath): boolean => !isTriedLately(ofRegime, path, now);
  const best = bestKnown(ofRegime);
  const recalled = best !== null && pathId(best) !== pathId(question.incumbent) ? [best] : [];
  const itl: ItlKnowledge = {
    spread: itlSpread(question.tried),
    errors: ofRegime.flatMap(({ itlErrors = [] }) => itlErrors),
  };
  const search = (candidates: readonly ExecutionPath[], isRecalled: boolean): ProposeAnswer => {
    const paths = candidates.filter(fresh).flatMap(fitted);
    const tested = candidates.filter((path) => !fresh(path)).flatMap(fitted);
    const found = searchPaths({
      incumbent,
      candidates: paths,
      tested,
      arrivals,
      envelope: question.envelope,
      deviceUsdPerHour: question.deviceUsdPerHour,
      seed: question.seed,
      itl,
      liveItlP99Ms: question.liveItlP99Ms,
      simulate: question.simulate ?? replay,
    });
    if (found.finalists.length > 0) {
      return answerOf(question, found, ofRegime, paths.length, isRecalled);
    }
    return { draft: null, note: `None of ${paths.length} paths keeps the ITL objective.` };
  };
  // The regime's best known path comes first, however many settings away it is: it has been live here.
  const known = recalled.filter(fresh).length > 0 ? search(recalled, true) : null;
  return known !== null && known.draft !== null ? known : search(question.candidates, false);
}

function answerOf(
  question: ProposeQuestion,
  found: Found,
  ofRegime: readonly TriedPath[],
  count: number,
  isRecalled: boolean,
): ProposeAnswer {
  const { incumbent, itl } = found;
  const spread = replaySpread(question.tried);
  // Both must say so: a replay alone may be off, and what was measured lately is short.
  const misses =
    meanLateGapShare(incumbent.draws) > MOST_LATE_GAPS && riskOf(incumbent, itl) > MOST_CANARY_RISK;
  const belief = believed(found, ofRegime, spread, isRecalled);
  const penaltyOf = (finalist: Finalist): number =>
    mean(
      finalist.draws.map((draw, index) => {
        const now = incumbent.draws[index];
        return now === undefined ? 0 : logAttainmentOf(now) - logAttainmentOf(draw);
      }),
    );
  const arms = found.finalists
    .filter(({ draws }) => !misses || meanLateGapShare(draws) <= meanLateGapShare(incumbent.draws))
    .map((finalist) => {
      const metrics = metricsOf(incumbent, finalist, belief);
      const penalty = penaltyOf(finalist);
      // Gaps that are short because requests wait at the door are no gain.
      const isObjectiveRegained =
        misses && meanLateGapShare(finalist.draws) <= CLEARLY_KEPT && penalty <= MOST_LOST_GOOD;
      const changeCount = diffPaths(incumbent.path, finalist.path).length;
      // Where the live path misses the objective, missing it less is no risk.
      const risk = misses ? 0 : riskOf(finalist, itl);
      return { finalist, metrics, changeCount, penalty, risk, isObjectiveRegained };
    });
  const regained = arms.find(({ isObjectiveRegained }) => isObjectiveRegained);
  // A canary measures device ms alone: where they surely fall less than it asks for, it could not be won.
  const worth = arms.filter(({ metrics, risk, penalty }) => {
    const { value, low } = costOf(metrics);
    const goodAnswers = goodAnswersOf(penalty);
    const gain = goodAnswers - value;
    return (
      gain * (gain > 0 ? 1 - risk : 1) >= question.leastGain &&
      Math.log1p(low) < logCostForGoodAnswers(goodAnswers)
    );
  });
  const shifted: Belief = {
    ...belief,
    mean: belief.mean.map((value, index) => {
      const arm = arms.find(({ finalist }) => pathId(finalist.path) === belief.ids[index]);
      return value + (arm?.penalty ?? 0) + MORE_CHANGES * Math.max(0, (arm?.changeCount ?? 1) - 1);
    }),
  };
  const random = seededRandom(question.seed + 104_729 * question.tried.length);
  const worthOf = new Map(worth.map((arm) => [pathId(arm.finalist.path), arm]));
  const choice = choose(
    shifted,
    (id) => worthOf.has(id),
    (id) => worthOf.get(id)?.risk ?? 0,
    random,
  );
  const chosen = regained ?? worthOf.get(choice.id ?? '');
  if (chosen === undefined) {
    const cheapest = arms[0];
    const words =
      cheapest === undefined
        ? 'none that surely keeps the ITL objective'
        : gainInWords(costOf(cheapest.metrics));
    return { draft: null, note: `The best of ${count} paths: ${words}.` };
  }
  const { finalist, metrics, isObjectiveRegained } = chosen;
  const goodAnswers = goodAnswersOf(chosen.penalty);
  // Where it regains the objective and costs no less, the gaps are what is promised.
  const aim: Aim =
    isObjectiveRegained && costOf(metrics).high > 0 ? 'itl' : goodAnswers > 0 ? 'goodAnswers' : 'deviceMs';
  const replayedLogCost = logRatioOf(incumbent, finalist).mean;
  const { windowEndedAt } = question.evidence;
  const earlierGaps = earlierGapsOf(ofRegime, finalist.path, question.objectives.itlMs, windowEndedAt);
  const facts: ProposalFacts = {
    aim,
    isObjectiveRegained,
    goodAnswers,
    from: incumbent.path,
    to: finalist.path,
    changes: diffPaths(incumbent.path, finalist.path),
    metrics,
    itlObjectiveMs: Math.min(...found.arrivals.map(({ objectives }) => objectives.itlMs)),
    missRisk: chosen.risk,
    requestCount: found.arrivals.length,
    windowMs: question.evidence.windowEndedAt - question.evidence.windowStartedAt,
    regimeName: question.evidence.regimeName,
    fitError: worstError([incumbent.fit, finalist.fit]),
    tokensPerStepNow: tokensPerStep(incumbent.replay),
    tokensPerStepThen: tokensPerStep(finalist.replay),
    legalCount: found.standingCount,
    candidateCount: count,
    guesses: guessBasis(question.arrivals),
    isRecalled,
    earlierGaps,
    replayedChange: Math.expm1(replayedLogCost),
    replaySpread: spread,
    canaryCount: ofRegime.filter(({ cost }) => cost !== null).length,
  };
  const draft: ProposalDraft = {
    workerId: question.workerId,
    from: incumbent.path,
    to: finalist.path,
    changes: facts.changes,
    aim,
    title: proposalTitle(facts),
    reason: proposalReason(facts),
    metrics,
    evidence: {
      ...question.evidence,
      requestCount: found.arrivals.length,
      fitIds: [...new Set([incumbent.fit.fitId, finalist.fit.fitId])],
      considered: consideredPaths(found),
      replayedLogCost,
      ...(aim === 'goodAnswers' ? { replayedLogGoodAnswers: goodAnswers } : {}),
      ...(earlierGaps === null ? {} : { earlierGaps }),
    },
  };
  return { draft, note: draft.title };
}

/** Log(good requests, path / incumbent) where they are more by as much as is worth aiming at; else 0. */
const goodAnswersOf = (penalty: number): number => (penalty <= -LEAST_GOOD_ANSWERS ? -penalty : 0);

/** The replays' prior, corrected by what the regime's canaries measured. */
function believed(found: Found, ofRegime: readonly TriedPath[], spread: number, isRecalled: boolean): Belief {
  const { incumbent, finalists, lastRung } = found;
  const arms = finalists.map((finalist): ReplayedArm => {
    const { mean: logRatio, variance } = logRatioOf(incumbent, finalist);
    return { id: pathId(finalist.path), logRatio, variance };
  });
  const base = Math.log(incumbent.replay.outcome.deviceMsPerRequest);
  const rivals = lastRung.map(({ replay: { outcome } }) => Math.log(outcome.deviceMsPerRequest) - base);
  const known = new Set([pathId(incumbent.path), ...arms.map(({ id }) => id)]);
  const bridges = ofRegime
    .flatMap(({ from, to }) => [pathId(from), pathId(to)])
    .filter((id, index, all) => !known.has(id) && all.indexOf(id) === index)
    .map((id): ReplayedArm => ({ id, logRatio: 0, variance: UNKNOWN_VARIANCE }));
  // A recalled path was not chosen from rivals by its replay.
  const prior = beliefOf(pathId(incumbent.path), arms, isRecalled ? [] : rivals, spread, DRAW_COUNT, bridges);
  return ofRegime.reduce(
    (belief, { from, to, cost }) =>
      cost === null ? belief : observed(belief, { from: pathId(from), to: pathId(to), ...cost }),
    prior,
  );
}

/** As drawn, but the cost as it is believed. */
function metricsOf(incumbent: Finalist, finalist: Finalist, belief: Belief): PredictedMetric[] {
  const gain = gainOf(belief, pathId(finalist.path));
  const halfWidth = NORMAL_90 * gain.spread;
  const change = {
    value: Math.expm1(gain.mean),
    low: Math.expm1(gain.mean - halfWidth),
    high: Math.expm1(gain.mean + halfWidth),
  };
  return comparedMetrics(incumbent.draws, finalist.draws).map((metric) => {
    if (metric.metric !== 'deviceMsPerRequest' && metric.metric !== 'costUsdPerMillionTokens') return metric;
    const { now } = metric;
    const predicted = {
      value: now.value * (1 + change.value),
      low: now.value * (1 + change.low),
      high: now.value * (1 + change.high),
    };
    return { ...metric, predicted, change };
  });
}

/** log(device ms per request of the finalist / of the incumbent) over paired draws; the draws' own variance, not the mean's. */
function logRatioOf(incumbent: Finalist, finalist: Finalist): { mean: number; variance: number } {
  const logs = finalist.draws.flatMap(({ outcome }, draw) => {
    const now = incumbent.draws[draw]?.outcome.deviceMsPerRequest ?? 0;
    return now > 0 && outcome.deviceMsPerRequest > 0 ? [Math.log(outcome.deviceMsPerRequest / now)] : [];
  });
  return { mean: mean(logs), variance: varianceOf(logs) };
}

/** The incumbent, then those of the last rung, the cheapest first; what was drawn with error brings its interval. */
function consideredPaths({ incumbent, finalists, lastRung, itl }: Found): ConsideredPath[] {
  const drawn = new Map<ExecutionPath, readonly PredictedMetric[]>(
    finalists.map(({ path, draws }) => [path, comparedMetrics(incumbent.draws, draws)]),
  );
  const legal = new Set<Replayed>(legalOf([incumbent, ...lastRung], incumbent, itl));
  const byCost = [...lastRung].sort((a, b) => a.logCost - b.logCost);
  return [incumbent, ...byCost].slice(0, MOST_CONSIDERED).map((considered): ConsideredPath => {
    const own =
      considered === incumbent
        ? [...drawn.values()][0]?.map(({ metric, now }) => ({ metric, estimate: now }))
        : drawn.get(considered.path)?.map(({ metric, predicted }) => ({ metric, estimate: predicted }));
    return {
      changes: diffPaths(incumbent.path, considered.path),
      metrics: METRICS.map((name) => {
        const estimate = own?.find(({ metric }) => metric === name)?.estimate;
        if (estimate === undefined) {
          return { metric: name, value: considered.replay.outcome[name], interval: null };
        }
        const { value, low, high } = estimate;
        return { metric: name, value, interval: { low, high } };
      }),
      keepsObjectives: legal.has(considered),
    };
  });
}

const meanLateGapShare = (replays: readonly Replay[]): number =>
  mean(replays.map(({ lateGapShare }) => lateGapShare));

const costOf = (metrics: readonly PredictedMetric[]): Estimate =>
  metrics.find(({ metric }) => metric === 'deviceMsPerRequest')?.change ?? { value: 0, low: 0, high: 0 };

const tokensPerStep = ({ steps }: Replay): number => mean(steps.map(({ tokenCount }) => tokenCount));

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
