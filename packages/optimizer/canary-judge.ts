/**
 * Judges a canary on one worker: pairs of blocks, control and candidate in random order, compared by measured device ms
 * over standard ms (frozen prices), with a confidence sequence that may be read after every pair (algorithms.md g).
 * Called by the rollout driver. Refuses to decide what happens then: that is rollout.ts.
 */
import {
  correctionFactor,
  predictMs,
  type StepFeatures,
  type StepTimeFit,
} from '@variator/scheduler/step-time';
import {
  addGaps,
  evidenceOfBreaking,
  evidenceOfKeeping,
  isWithinMost,
  type LateGaps,
  lateGapsOf,
  NO_GAPS,
} from './late-gaps.ts';
import { mean, varianceOf } from './moments.ts';
import { weightedQuantile } from './quantile.ts';
import type { SeededRandom } from './seeded-random.ts';

export type Verdict = 'better' | 'worse' | 'inconclusive';

/** A step as the judge needs it; a step row is one. */
export interface JudgedStep extends StepFeatures {
  readonly pathId: string;
  readonly isSettling: boolean;
  readonly deviceMs: number;
  readonly prefillDeviceMs: number;
  readonly recomputeDeviceMs: number;
  /** Guesses that it verified, and those of them that were right. */
  readonly draftedTokenCount: number;
  readonly acceptedDraftCount: number;
  readonly itlMeanMs: number;
  readonly itlTokenCount: number;
  readonly foreignCpuShare: number;
}

/** Milliseconds a unit of work is worth; frozen before the canary and used for both sides. */
export interface StandardPrices {
  readonly prefillTokenMs: number;
  readonly decodeTokenMs: number;
  readonly contextTokenMs: number;
}

/** One pair of the canary: the ratio of candidate to control, judged steps only. */
export interface PairResult {
  readonly pairIndex: number;
  readonly controlCost: number;
  readonly candidateCost: number;
  /** log(candidate / control) of device ms over standard ms. */
  readonly logCostRatio: number;
  /** log(candidate / control) of the work that the blocks did, standard ms; absent in pairs that are older than it. */
  readonly logWorkRatio?: number;
  readonly controlItlP99Ms: number;
  readonly candidateItlP99Ms: number;
  /** Of the plan's ITL objective; absent without one and in pairs that are older than it. */
  readonly controlGaps?: LateGaps;
  readonly candidateGaps?: LateGaps;
  readonly controlStepCount: number;
  readonly candidateStepCount: number;
}

/**
 * Prices of one prefilled, decoded and context token, from how the incumbent's fit splits its own typical steps: fixed
 * costs equally by sequence, the rest by marginal time, divided by the tokens of each kind. They value WORK, not steps: a
 * step is worth the same however it was batched, so a budget that reads the weights less often per token has a lower
 * cost. (Dividing by a prediction for the batch that ran would model exactly that effect away.) Each typical step counts as
 * the fit predicts it, residuals included: at these prices they are worth together what they were predicted to take.
 */
export function freezePrices(fit: StepTimeFit, typicalSteps: readonly StepFeatures[]): StandardPrices {
  const steps = typicalSteps.length > 0 ? typicalSteps : [TYPICAL_STEP];
  const { betaMs } = fit;
  let prefillMs = 0;
  let decodeMs = 0;
  let prefillTokens = 0;
  let decodeTokens = 0;
  let contextMs = 0;
  let contextTokens = 0;
  for (const step of steps) {
    const sequenceCount = step.prefillSequenceCount + step.decodeSequenceCount;
    if (sequenceCount === 0 || step.tokenCount === 0) continue;
    const tokenMs =
      betaMs.perToken +
      (betaMs.perTokenAboveKnee * Math.max(0, step.tokenCount - fit.kneeTokens)) / step.tokenCount;
    const decoded = step.tokenCount - step.prefillTokenCount;
    const fixedMs = betaMs.perStep / sequenceCount;
    const factor = correctionFactor(fit, step);
    prefillMs +=
      factor *
      (step.prefillSequenceCount * (fixedMs + betaMs.perPrefillSequence) +
        step.prefillTokenCount * tokenMs +
        step.prefillAttention * betaMs.perPrefillAttention);
    decodeMs +=
      factor * (step.decodeSequenceCount * (fixedMs + betaMs.perDecodeSequence) + decoded * tokenMs);
    contextMs += factor * betaMs.perDecodeContextToken * step.decodeContextTokens;
    contextTokens += step.decodeContextTokens;
    prefillTokens += step.prefillTokenCount;
    decodeTokens += decoded;
  }
  // A kind the window had none of is priced like a token of a lone typical step.
  const fallbackMs = predictMs(fit, TYPICAL_STEP) / TYPICAL_STEP.tokenCount;
  return {
    prefillTokenMs: prefillTokens > 0 && prefillMs > 0 ? prefillMs / prefillTokens : fallbackMs,
    decodeTokenMs: decodeTokens > 0 && decodeMs > 0 ? decodeMs / decodeTokens : fallbackMs,
    contextTokenMs: contextTokens > 0 ? contextMs / contextTokens : betaMs.perDecodeContextToken,
  };
}

/** Four chats decoding at 200 tokens while 28 prompt tokens come in. */
const TYPICAL_STEP: StepFeatures = {
  tokenCount: 32,
  decodeSequenceCount: 4,
  prefillSequenceCount: 1,
  prefillTokenCount: 28,
  decodeContextTokens: 800,
  prefillAttention: 392,
};

/**
 * What these steps' useful work is worth. Tokens computed again after a preemption and guesses that were wrong are worth nothing;
 * one that was right is a token decoded, with a context that another step would have read for it.
 */
export function standardMs(steps: readonly JudgedStep[], prices: StandardPrices): number {
  return steps.reduce((sum, step) => {
    const promptMs = step.prefillDeviceMs + step.recomputeDeviceMs;
    const usefulShare = promptMs > 0 ? step.prefillDeviceMs / promptMs : 1;
    const wrongCount = step.draftedTokenCount - step.acceptedDraftCount;
    const turnsSpared = step.acceptedDraftCount / Math.max(1, step.decodeSequenceCount);
    return (
      sum +
      prices.prefillTokenMs * step.prefillTokenCount * usefulShare +
      prices.decodeTokenMs * (step.tokenCount - step.prefillTokenCount - wrongCount) +
      prices.contextTokenMs * step.decodeContextTokens * (1 + turnsSpared)
    );
  }, 0);
}

export interface BlockMeasure {
  readonly stepCount: number;
  /** Standard ms. */
  readonly workMs: number;
  /** Device ms over standard ms. */
  readonly cost: number;
  readonly itlP99Ms: number;
  /** All on time where there is no objective. */
  readonly gaps: LateGaps;
  readonly foreignCpuShare: number;
}

/** A block's judged steps: its own path, limits already holding. Null where there is nothing to compare. */
export function measureBlock(
  steps: readonly JudgedStep[],
  pathId: string,
  prices: StandardPrices,
  itlObjectiveMs = 0,
): BlockMeasure | null {
  const judged = steps.filter((step) => step.pathId === pathId && !step.isSettling);
  const worthMs = standardMs(judged, prices);
  const deviceMs = judged.reduce((sum, step) => sum + step.deviceMs, 0);
  if (worthMs <= 0 || deviceMs <= 0) return null;
  const gaps = judged.map((step) => ({ value: step.itlMeanMs, weight: step.itlTokenCount }));
  const itlP99Ms = weightedQuantile(gaps, 0.99);
  return {
    stepCount: judged.length,
    workMs: worthMs,
    cost: deviceMs / worthMs,
    itlP99Ms: Number.isNaN(itlP99Ms) ? 0 : itlP99Ms,
    gaps: lateGapsOf(judged, itlObjectiveMs > 0 ? itlObjectiveMs : Number.POSITIVE_INFINITY),
    foreignCpuShare: judged.reduce((sum, step) => sum + step.foreignCpuShare * step.deviceMs, 0) / deviceMs,
  };
}

export interface PairQuestion {
  readonly pairIndex: number;
  readonly controlSteps: readonly JudgedStep[];
  readonly candidateSteps: readonly JudgedStep[];
  readonly controlPathId: string;
  readonly candidatePathId: string;
  readonly prices: StandardPrices;
  /** As in the plan; 0: none. */
  readonly itlObjectiveMs: number;
  /** A block with fewer judged steps is not compared. */
  readonly leastStepsPerBlock: number;
}

/** Null where either block had too little to compare. */
export function judgePair(question: PairQuestion): PairResult | null {
  const { prices, itlObjectiveMs } = question;
  const control = measureBlock(question.controlSteps, question.controlPathId, prices, itlObjectiveMs);
  const candidate = measureBlock(question.candidateSteps, question.candidatePathId, prices, itlObjectiveMs);
  if (control === null || candidate === null) return null;
  if (Math.min(control.stepCount, candidate.stepCount) < question.leastStepsPerBlock) return null;
  return {
    pairIndex: question.pairIndex,
    controlCost: control.cost,
    candidateCost: candidate.cost,
    logCostRatio: Math.log(candidate.cost / control.cost),
    logWorkRatio: Math.log(candidate.workMs / control.workMs),
    controlItlP99Ms: control.itlP99Ms,
    candidateItlP99Ms: candidate.itlP99Ms,
    ...(itlObjectiveMs > 0 ? { controlGaps: control.gaps, candidateGaps: candidate.gaps } : {}),
    controlStepCount: control.stepCount,
    candidateStepCount: candidate.stepCount,
  };
}

/** Which side each of 2 x pairCount blocks runs; the order inside a pair is drawn. Block i belongs to pair floor(i / 2). */
export function planBlocks(random: SeededRandom, pairCount: number): ('control' | 'candidate')[] {
  return Array.from({ length: pairCount }, () =>
    random.uniform() < 0.5 ? (['control', 'candidate'] as const) : (['candidate', 'control'] as const),
  ).flat();
}

export interface Confidence {
  readonly mean: number;
  readonly low: number;
  readonly high: number;
}

/** Error allowed when a path is promoted, and when it is rolled back: a wrong promotion costs more. */
const PROMOTE_ALPHA = 0.01;
const ROLL_BACK_ALPHA = 0.05;
/** A cost up to 1 % above the incumbent's is not worth a rollback. */
const TOLERATED_LOG_COST = 0.01;

/**
 * Asymptotic confidence sequence for a mean (Waudby-Smith et al., arXiv 2103.06476), tightest at half the planned count.
 * Few pairs estimate their own spread badly, so the spread is widened as Student's t would.
 */
export function confidenceSequence(
  values: readonly number[],
  plannedCount: number,
  alpha: number,
): Confidence | null {
  const count = values.length;
  if (count < 2) return null;
  const middle = mean(values);
  const spread = Math.sqrt(varianceOf(values)) * Math.sqrt((count + 1) / Math.max(1, count - 2));
  const tightestAt = Math.max(2, plannedCount / 2);
  const rho2 = (-2 * Math.log(alpha) + Math.log(-2 * Math.log(alpha) + 1)) / tightestAt;
  const scale = count * rho2 + 1;
  const halfWidth =
    spread * Math.sqrt(((2 * scale) / (count * count * rho2)) * Math.log(Math.sqrt(scale) / alpha));
  return { mean: middle, low: middle - halfWidth, high: middle + halfWidth };
}

/** Fewer do not tell a slope from chance; and so many pairs' worth of none stand against it. */
const LEAST_PAIRS_FOR_SLOPE = 8;
const NO_SLOPE_PAIRS = 4;

/**
 * Log cost ratios without the chance of the load. A block that more came in for runs larger batches and costs less per unit of
 * work, whichever path it ran; which one it ran was drawn, so the difference of the work that both did is 0 in the mean and
 * may be regressed out (CUPED, Deng et al. 2013). Where it surely is not 0, one path does more than the other (a saturated
 * worker): nothing is taken out.
 */
export function costsAtEqualLoad(pairs: readonly PairResult[]): number[] {
  const costs = pairs.map(({ logCostRatio }) => logCostRatio);
  const loads = pairs.map(({ logWorkRatio = 0 }) => logWorkRatio);
  const [cost, load, variance] = [mean(costs), mean(loads), varianceOf(loads)];
  if (
    pairs.length < LEAST_PAIRS_FOR_SLOPE ||
    variance === 0 ||
    Math.abs(load) > 2 * Math.sqrt(variance / loads.length)
  )
    return costs;
  const products = loads.reduce((sum, one, index) => sum + (one - load) * ((costs[index] ?? 0) - cost), 0);
  const slope = products / ((loads.length - 1 + NO_SLOPE_PAIRS) * variance);
  return costs.map((one, index) => one - slope * (loads[index] ?? 0));
}

/**
 * What a proposal promised: fewer device ms per request, gaps within an objective the incumbent misses, or more answers within
 * their objectives for about as many device ms.
 */
export type Aim = 'deviceMs' | 'itl' | 'goodAnswers';

/** Gaps of canaries before, aged: what a path has shown already need not be shown again from nothing. */
export interface EarlierGaps extends LateGaps {
  readonly objectiveMs: number;
  readonly canaryCount: number;
  /** When the newest of them ended. */
  readonly lastAt: number;
}

export interface JudgingPlan {
  readonly aim: Aim;
  /** Before so many nothing is decided, save by the ITL guard. */
  readonly leastPairCount: number;
  /** A few pairs know their own spread badly: before so many nothing is promoted. Absent in plans older than it: as above. */
  readonly leastPairCountToPromote?: number;
  readonly mostPairCount: number;
  readonly itlGuardRatio: number;
  /** The guard lets a candidate use the slack its objective leaves: below this no gap is too long. */
  readonly itlObjectiveMs: number;
  /** What the candidate's gaps in this regime were before, of the same objective; absent where nothing is known. */
  readonly earlierGaps?: EarlierGaps;
  /** Cost increase that the proposal was approved with, as a log ratio (`approvedLogCostOf`); 0 for the aim `deviceMs`. */
  readonly approvedLogCost: number;
}

export interface Judgement {
  /** `inconclusive` also while pairs may still come. */
  readonly verdict: Verdict;
  /** On the mean log cost ratio at the promotion's level; null before two pairs. */
  readonly confidence: Confidence | null;
  /** The same on the log ratio of ITL p99; null before two pairs with gaps on both sides. */
  readonly itlConfidence: Confidence | null;
  /** The candidate's, over the pairs whose control keeps the ITL objective. */
  readonly gaps: LateGaps;
  /** True when the ITL guard says stop now, whatever the cost. */
  readonly isGuardTripped: boolean;
}

/** What the pairs so far say. May be asked after every pair: the bounds hold at all times. */
export function judgeCanary(pairs: readonly PairResult[], plan: JudgingPlan): Judgement {
  const costs = costsAtEqualLoad(pairs);
  const gaps = pairs
    .filter((pair) => pair.controlItlP99Ms > 0 && pair.candidateItlP99Ms > 0)
    .map((pair) => Math.log(pair.candidateItlP99Ms / pair.controlItlP99Ms));
  const bounds = (values: readonly number[], alpha: number): Confidence | null =>
    confidenceSequence(values, plan.mostPairCount, alpha);
  const confidence = bounds(costs, PROMOTE_ALPHA);
  const itlConfidence = bounds(gaps, PROMOTE_ALPHA);
  const isGuardTripped = isItlGuardTripped(pairs, plan);
  const kept = keptPairs(pairs, plan);
  const gapsOfKept = addGaps(kept.map(({ candidateGaps = NO_GAPS }) => candidateGaps));
  const judged = (verdict: Verdict): Judgement => ({
    ...{ verdict, confidence, itlConfidence, isGuardTripped },
    gaps: gapsOfKept,
  });

  if (isGuardTripped) return judged('worse');
  if (pairs.length < plan.leastPairCount) return judged('inconclusive');
  const costToRollBack = bounds(costs, ROLL_BACK_ALPHA);
  if (costToRollBack !== null && costToRollBack.low > plan.approvedLogCost + TOLERATED_LOG_COST) {
    return judged('worse');
  }
  const logGaps = logGapsOf(kept, plan);
  const broken = logGaps.filter((log) => log > 0).length / Math.max(1, logGaps.length);
  if (broken > SURELY_BROKEN && mayBeBroken(kept)) return judged('worse');
  const aimed = plan.aim === 'itl' ? itlConfidence : confidence;
  // What the replay knows of good answers a canary cannot see; that they surely cost no more than was approved it can.
  const mostAimed = plan.aim === 'goodAnswers' ? plan.approvedLogCost : 0;
  const gapBounds = bounds(logGaps, KEPT_ALPHA);
  // Late gaps that come together spoil few blocks: then p99s lie well below, and the count does not.
  const isWellBelow =
    broken < MAYBE_BROKEN && gapBounds !== null && gapBounds.high < 0 && isWithinMost(gapsOfKept);
  const evidence = evidenceOfKeeping(addGaps([gapsOfKept, plan.earlierGaps ?? NO_GAPS]));
  const isKept =
    logGaps.length === 0 || isWellBelow || (gapsOfKept.count > 0 && evidence > -Math.log(KEPT_ALPHA));
  if (aimed !== null && aimed.high < mostAimed && isKept && mayPromote(pairs, plan)) return judged('better');
  const gapsToRollBack = plan.aim === 'itl' ? bounds(gaps, ROLL_BACK_ALPHA) : null;
  return judged(gapsToRollBack !== null && gapsToRollBack.low > 0 ? 'worse' : 'inconclusive');
}

/** A plan shorter than what a promotion asks for promotes with its last pair or not at all, and one of fewer than these never. */
const SHORTEST_TO_PROMOTE = 4;

function mayPromote({ length }: readonly PairResult[], plan: JudgingPlan): boolean {
  const { leastPairCount, mostPairCount, leastPairCountToPromote = leastPairCount } = plan;
  const isLongEnough = leastPairCountToPromote <= mostPairCount;
  return length >= (isLongEnough ? leastPairCountToPromote : Math.max(SHORTEST_TO_PROMOTE, mostPairCount));
}

/** Of the pairs whose control keeps the ITL objective, those whose candidate does not; above this it is rolled back. */
const SURELY_BROKEN = 0.75;
/** Above this, or with the mean not surely within the objective, p99s do not say that it is kept: counted gaps still may. */
const MAYBE_BROKEN = 0.35;
/** Of either way to say so: of p99s, and of counted gaps. */
const KEPT_ALPHA = 0.05;
const BROKEN_ALPHA = 0.05;

/** Those whose control keeps the ITL objective; none where it misses it in most of them. */
function keptPairs(pairs: readonly PairResult[], { itlObjectiveMs }: JudgingPlan): readonly PairResult[] {
  const kept = pairs.filter(
    ({ controlItlP99Ms }) => controlItlP99Ms > 0 && controlItlP99Ms <= itlObjectiveMs,
  );
  return 2 * kept.length < pairs.length ? [] : kept;
}

/** log(candidate's ITL p99 / objective). */
const logGapsOf = (kept: readonly PairResult[], { itlObjectiveMs }: JudgingPlan): number[] =>
  kept.flatMap(({ candidateItlP99Ms: ms }) => (ms > 0 ? [Math.log(ms / itlObjectiveMs)] : []));

/** A p99 of a hundred gaps is above the objective with two of them: where gaps are counted, enough of them must be late, too. */
function mayBeBroken(pairs: readonly PairResult[]): boolean {
  const gaps = addGaps(pairs.map(({ candidateGaps = NO_GAPS }) => candidateGaps));
  return gaps.count === 0 || evidenceOfBreaking(gaps) > -Math.log(BROKEN_ALPHA);
}

/** Two pairs running above the limit; one alone may be a neighbour's burst. */
function isItlGuardTripped(pairs: readonly PairResult[], plan: JudgingPlan): boolean {
  const [before, last] = pairs.slice(-2);
  if (before === undefined || last === undefined || !mayBeBroken([before, last])) return false;
  return [before, last].every((pair) => {
    const limitMs = Math.max(plan.itlGuardRatio * pair.controlItlP99Ms, plan.itlObjectiveMs);
    return pair.controlItlP99Ms > 0 && pair.candidateItlP99Ms > limitMs;
  });
}
