/**
 * Worlds whose reality differs from what the search can know: every term of a kernel's fit is up to 10 % off, every path has
 * a hidden bias of 5 % of its own, and the traffic that is served is not the traffic that was replayed. Canaries are the
 * real judge and reducer over noisy pairs. Used by search-gates.test.ts (few worlds) and the bench (all 200 runs).
 */
import {
  type Envelope,
  type ExecutionPath,
  kernelsId,
  pathFaults,
  pathId,
} from '@variator/kernels/execution-path';
import type { StepTimeFit, StepTimeModel } from '@variator/scheduler/step-time';
import { costsAtEqualLoad, type JudgingPlan, type PairResult } from './canary-judge.ts';
import { candidatePaths } from './candidate-paths.ts';
import { MOST_LATE_GAPS } from './feasible-paths.ts';
import type { LateGaps } from './late-gaps.ts';
import { itlErrorsOf, lateGapsOfSides, realisedOf, type TriedPath } from './path-memory.ts';
import { approvedLogCostOf, type ProposalDraft } from './proposal.ts';
import { propose } from './propose.ts';
import { type Arrival, type Replay, type ReplayQuestion, replay } from './replay.ts';
import { advance, beginRollout, type RolloutProgress } from './rollout.ts';
import { logAttainmentOf } from './search-paths.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';
import { testEnvelope, testFit } from './test-world.ts';

/** What the served traffic says of a path. */
export interface Truth {
  /** log device ms per request, as a canary can measure it. */
  readonly logDeviceMs: number;
  /** log device ms per good request: the objective. */
  readonly logCost: number;
  readonly itlP99Ms: number;
  readonly lateGapShare: number;
  readonly keepsObjective: boolean;
}

export interface World {
  readonly envelope: Envelope;
  readonly fits: readonly StepTimeFit[];
  /** Recorded before the search. */
  readonly arrivals: readonly Arrival[];
  readonly objectives: { readonly ttftMs: number; readonly itlMs: number };
  readonly start: ExecutionPath;
  readonly oracle: ExecutionPath;
  readonly simulate: (question: ReplayQuestion) => Replay;
  readonly truthOf: (path: ExecutionPath) => Truth;
}

/** Of three kinds: of one kind the catalogue knows the fastest, and no search is offered another. */
const LINEARS: Envelope['linearVariants'] = [
  'linear.int8-avx512vnni',
  'linear.bf16-avx512bf16',
  'linear.reference',
];
const envelope: Envelope = {
  ...testEnvelope,
  linearVariants: LINEARS,
  maxTokenBudget: 256,
  maxRunningCount: 16,
  threadCount: 1,
};
/** One reads weights fast, one computes fast, one does neither. */
const BETAS: readonly StepTimeFit['betaMs'][] = [
  { ...testFit.betaMs, perStep: 4, perToken: 0.25, perTokenAboveKnee: 0.3 },
  { ...testFit.betaMs, perStep: 7, perToken: 0.08, perTokenAboveKnee: 0.12 },
  { ...testFit.betaMs, perStep: 9, perToken: 0.6, perTokenAboveKnee: 0.5 },
];
const TERM_ERROR = 0.1;
const PATH_BIAS = 0.05;
const SEARCHED_COUNT = 100;
const SERVED_COUNT = 140;

export function makeWorld(seed: number): World {
  const random = seededRandom(90_001 + 7907 * seed);
  const paths = allPaths();
  const biasRandom = seededRandom(seed + 17);
  const fits = LINEARS.map((linear, index): StepTimeFit => {
    const path = { ...firstPath, linear };
    const betaMs = BETAS[index] ?? testFit.betaMs;
    return {
      ...testFit,
      fitId: linear,
      kernelsId: kernelsId(path),
      betaMs,
      heldOutMape: 0.05,
      logBand90: 0.08,
    };
  });
  const fitOf = new Map(fits.map((fit) => [fit.kernelsId, fit]));
  const truths = new Map(fits.map((fit) => [fit.kernelsId, perturbed(fit, random)]));
  /** By how a path runs: limits that never bind a step make no other path, so no other bias. */
  const biases = new Map<string, number>();
  const workload = drawWorkload(random);
  const arrivals = traffic(workload, SEARCHED_COUNT, random);
  const served = traffic(workload, SERVED_COUNT, random);
  const known = new Map<string, Truth>();
  const truthOf = (path: ExecutionPath): Truth => {
    const id = pathId(path);
    const before = known.get(id);
    if (before !== undefined) return before;
    const fit = fitOf.get(kernelsId(path));
    const device = truths.get(kernelsId(path));
    if (fit === undefined || device === undefined) throw new Error(`no fit of ${id}`);
    const question = { arrivals: served, path, fit, envelope, deviceUsdPerHour: 1, seed: 1, noise: 0.05 };
    const unbiased = replay({ ...question, device });
    const name = `${fit.kernelsId} ${unbiased.deviceMs}`;
    const bias = biases.get(name) ?? Math.exp(PATH_BIAS * biasRandom.normal());
    biases.set(name, bias);
    const real = replay({ ...question, device: scaled(device, bias) });
    const logDeviceMs = Math.log(real.outcome.deviceMsPerRequest);
    const truth: Truth = {
      logDeviceMs,
      logCost: logDeviceMs - logAttainmentOf(real),
      itlP99Ms: real.outcome.itlP99Ms,
      lateGapShare: real.lateGapShare,
      keepsObjective: real.lateGapShare <= MOST_LATE_GAPS && real.unfinishedCount === 0,
    };
    known.set(id, truth);
    return truth;
  };
  const keeping = paths.filter((path) => truthOf(path).keepsObjective);
  const [oracle] = [...keeping].sort((a, b) => truthOf(a).logCost - truthOf(b).logCost);
  const start = keeping[random.below(keeping.length)];
  // No path keeps such an objective: another draw.
  if (oracle === undefined || start === undefined) return makeWorld(seed + 1_000_003);
  const { objectives } = workload;
  return { envelope, fits, arrivals, objectives, start, oracle, simulate: remembered(), truthOf };
}

const firstPath: ExecutionPath = {
  linear: LINEARS[0] ?? 'linear.reference',
  attention: 'attention.reference',
  threadCount: 1,
  tokenBudget: 16,
  maxRunningCount: 1,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
};

function allPaths(): ExecutionPath[] {
  const paths = LINEARS.flatMap((linear) =>
    [16, 32, 64, 128, 256].flatMap((tokenBudget) =>
      [1, 4, 8, 16].map((maxRunningCount) => ({ ...firstPath, linear, tokenBudget, maxRunningCount })),
    ),
  );
  return paths.filter((path) => pathFaults(path, envelope).length === 0);
}

/** Answers are kept: the searches of a world ask the same of the twin again and again. */
function remembered(): (question: ReplayQuestion) => Replay {
  const known = new Map<string, Replay>();
  return (question) => {
    const { path, arrivals, seed, noise } = question;
    const key = `${pathId(path)} ${arrivals.length} ${seed} ${noise}`;
    const answer = known.get(key) ?? replay(question);
    known.set(key, answer);
    return answer;
  };
}

function perturbed(fit: StepTimeFit, random: SeededRandom): StepTimeModel {
  const terms = Object.entries(fit.betaMs).map(([term, beta]) => [
    term,
    beta * (1 + TERM_ERROR * (2 * random.uniform() - 1)),
  ]);
  return { kneeTokens: fit.kneeTokens, betaMs: { ...fit.betaMs, ...Object.fromEntries(terms) } };
}

function scaled({ kneeTokens, betaMs }: StepTimeModel, factor: number): StepTimeModel {
  const terms = Object.entries(betaMs).map(([term, beta]) => [term, beta * factor]);
  return { kneeTokens, betaMs: { ...betaMs, ...Object.fromEntries(terms) } };
}

interface Workload {
  readonly gapMs: number;
  readonly promptTokens: number;
  readonly answerTokens: number;
  readonly turnCount: number;
  readonly objectives: { readonly ttftMs: number; readonly itlMs: number };
}

function drawWorkload(random: SeededRandom): Workload {
  const logUniform = (low: number, high: number): number => low * (high / low) ** random.uniform();
  return {
    gapMs: logUniform(250, 900),
    promptTokens: logUniform(40, 350),
    answerTokens: logUniform(8, 50),
    turnCount: 1 + random.below(4),
    objectives: { ttftMs: 2000, itlMs: logUniform(25, 90) },
  };
}

function traffic(workload: Workload, count: number, random: SeededRandom): Arrival[] {
  const { gapMs, promptTokens, answerTokens, turnCount, objectives } = workload;
  const length = (middle: number): number =>
    Math.max(1, Math.round(middle * Math.exp(0.5 * random.normal())));
  const arrivals: Arrival[] = [];
  let at = 1e6;
  for (let session = 0; arrivals.length < count; session += 1) {
    at += -Math.log(1 - random.uniform()) * gapMs * turnCount;
    let cachedTokenCount = 0;
    let promptTokenCount = length(promptTokens);
    let turnAt = at;
    for (let turn = 0; turn < turnCount; turn += 1) {
      const completionTokenCount = length(answerTokens);
      arrivals.push({
        at: turnAt,
        promptTokenCount: Math.min(900, promptTokenCount),
        cachedTokenCount: Math.min(880, cachedTokenCount),
        completionTokenCount,
        session: `session-${session}`,
        tenant: '',
        serviceTier: 'default',
        objectives,
        isStreamed: true,
        e2eMs: 600,
      });
      cachedTokenCount = 16 * Math.floor(promptTokenCount / 16);
      promptTokenCount += completionTokenCount + length(30);
      turnAt += 3000 - 2000 * Math.log(1 - random.uniform());
    }
  }
  return arrivals.sort((a, b) => a.at - b.at).slice(0, count);
}

export interface SearchRun {
  /** Cost of the path that is live at the end, over the best one's, less 1. */
  readonly regret: number;
  readonly regretAtStart: number;
  readonly canaryCount: number;
  readonly promotedCount: number;
  /** Paths that went live and miss the ITL objective in reality. */
  readonly violatingCount: number;
}

export const MOST_CANARIES = 6;
/** The longest that a policy allows, and how far one pair of blocks is off. */
const MOST_PAIRS = 60;
const PAIR_SPREAD = 0.05;
const CANARY_MS = 20 * 60_000;
/** Of a block, as many as tell independently. */
const BLOCK_GAPS = 100;
/** Of the log share of late gaps from block to block. */
const LATE_SPREAD = 0.5;

/** Gains that are worth a canary: whatever is worth finding out, where nobody has to be asked; and as people are. */
export const EXPLORING = Number.NEGATIVE_INFINITY;
export const WORTH_ASKING = 0.03;

/** Searches, canaries and promotions from the world's start, at most six canaries. */
export function runSearch(world: World, seed: number, leastGain = EXPLORING): SearchRun {
  const random = seededRandom(31_337 * seed + 11);
  const regretOf = (path: ExecutionPath): number =>
    Math.expm1(world.truthOf(path).logCost - world.truthOf(world.oracle).logCost);
  const tried: TriedPath[] = [];
  let live = world.start;
  let violatingCount = 0;
  let now = 1e7;
  while (tried.length < MOST_CANARIES) {
    const { draft } = propose({
      workerId: 'w',
      incumbent: live,
      candidates: candidatePaths(live, world.envelope),
      fits: world.fits,
      arrivals: world.arrivals,
      envelope: world.envelope,
      objectives: world.objectives,
      deviceUsdPerHour: 1,
      liveItlP99Ms: world.truthOf(live).itlP99Ms * Math.exp(PAIR_SPREAD * random.normal()),
      evidence: {
        windowStartedAt: now - 60_000,
        windowEndedAt: now,
        stepCount: 1,
        regimeId: 'regime',
        regimeName: '',
      },
      tried,
      leastGain,
      // As the service does: replays of different searches are comparable. What differs between runs is what canaries see.
      seed: 1,
      simulate: world.simulate,
    });
    if (draft === null) break;
    const progress = simulatedCanary(draft, world, random, now);
    now += CANARY_MS;
    tried.push({
      deviceKind: '',
      modelHash: '',
      regimeId: 'regime',
      from: draft.from,
      to: draft.to,
      state: progress.state,
      endedAt: now,
      isPathsFault: false,
      cost: realisedOf(costsAtEqualLoad(progress.pairs)),
      replayedLogCost: draft.evidence.replayedLogCost ?? null,
      itlErrors: itlErrorsOf(draft, draft.metrics, progress.pairs),
      lateGaps: lateGapsOfSides(draft, progress.judgingPlan, progress.pairs),
    });
    if (progress.state !== 'live') continue;
    live = draft.to;
    if (!world.truthOf(live).keepsObjective) violatingCount += 1;
  }
  return {
    regret: regretOf(live),
    regretAtStart: regretOf(world.start),
    canaryCount: tried.length,
    promotedCount: tried.filter(({ state }) => state === 'live').length,
    violatingCount,
  };
}

function simulatedCanary(
  draft: ProposalDraft,
  world: World,
  random: SeededRandom,
  startedAt: number,
): RolloutProgress {
  const control = world.truthOf(draft.from);
  const candidate = world.truthOf(draft.to);
  const noisy = (value: number): number => value * Math.exp(PAIR_SPREAD * random.normal());
  const gapsOf = ({ lateGapShare }: Truth): LateGaps => {
    const share = lateGapShare * Math.exp(LATE_SPREAD * random.normal() - LATE_SPREAD ** 2 / 2);
    const late = Array.from({ length: BLOCK_GAPS }, () => Number(random.uniform() < share));
    return { count: BLOCK_GAPS, lateCount: late.reduce((sum, one) => sum + one, 0) };
  };
  const { earlierGaps } = draft.evidence;
  const judgingPlan: JudgingPlan = {
    aim: draft.aim,
    leastPairCount: 4,
    leastPairCountToPromote: 8,
    mostPairCount: MOST_PAIRS,
    itlGuardRatio: 1.5,
    itlObjectiveMs: world.objectives.itlMs,
    ...(earlierGaps === undefined ? {} : { earlierGaps }),
    approvedLogCost: approvedLogCostOf(draft),
  };
  let progress = beginRollout({ at: startedAt, approvedBy: 'policy', judgingPlan });
  progress = advance(progress, { kind: 'prepared', at: startedAt, prepareMs: 1 });
  progress = advance(progress, { kind: 'checked', at: startedAt, summary: '' });
  for (let pairIndex = 0; pairIndex < MOST_PAIRS && progress.state === 'canary'; pairIndex += 1) {
    const logCostRatio = candidate.logDeviceMs - control.logDeviceMs + PAIR_SPREAD * random.normal();
    const pair: PairResult = {
      pairIndex,
      controlCost: 1,
      candidateCost: Math.exp(logCostRatio),
      logCostRatio,
      controlItlP99Ms: noisy(control.itlP99Ms),
      candidateItlP99Ms: noisy(candidate.itlP99Ms),
      controlGaps: gapsOf(control),
      candidateGaps: gapsOf(candidate),
      controlStepCount: 100,
      candidateStepCount: 100,
    };
    progress = advance(progress, { kind: 'pairJudged', at: startedAt + 16_000 * (pairIndex + 1), pair });
  }
  return progress.state === 'canary'
    ? advance(progress, { kind: 'planEnded', at: startedAt + 16_000 * MOST_PAIRS })
    : progress;
}
