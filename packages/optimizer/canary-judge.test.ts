import { predictMs, residualPlace, type StepTimeFit } from '@variator/scheduler/step-time';
import { expect, test } from 'vitest';
import {
  costsAtEqualLoad,
  freezePrices,
  type JudgedStep,
  type JudgingPlan,
  judgeCanary,
  judgePair,
  type PairResult,
  planBlocks,
  standardMs,
} from './canary-judge.ts';
import { seededRandom } from './seeded-random.ts';

const plan: JudgingPlan = {
  aim: 'deviceMs',
  leastPairCount: 4,
  mostPairCount: 12,
  itlGuardRatio: 1.5,
  itlObjectiveMs: 0,
  approvedLogCost: 0,
};

const fit: StepTimeFit = {
  fitId: 'f',
  deviceKind: 'cpu',
  modelHash: 'm',
  kernelsId: 'k',
  fittedAt: 0,
  sampleCount: 100,
  kneeTokens: 8,
  betaMs: {
    perStep: 5,
    perToken: 0.1,
    perTokenAboveKnee: 0.4,
    perDecodeSequence: 0.02,
    perPrefillSequence: 0.05,
    perDecodeContextToken: 0.001,
    perPrefillAttention: 0.00002,
  },
  heldOutMape: null,
  heldOutCount: 0,
  logBand90: null,
};

function step(change: Partial<JudgedStep>): JudgedStep {
  return {
    pathId: 'a',
    isSettling: false,
    tokenCount: 4,
    decodeSequenceCount: 4,
    prefillSequenceCount: 0,
    prefillTokenCount: 0,
    decodeContextTokens: 400,
    prefillAttention: 0,
    deviceMs: 6,
    prefillDeviceMs: 0,
    recomputeDeviceMs: 0,
    draftedTokenCount: 0,
    acceptedDraftCount: 0,
    itlMeanMs: 7,
    itlTokenCount: 4,
    foreignCpuShare: 0,
    ...change,
  };
}

/** Pairs of adjacent blocks under one AR(0.8) load shock, order drawn inside each pair. */
function noisyPairs(seed: number, effect: number, itlRatio = 1, shockSpread = 0.05): PairResult[] {
  const random = seededRandom(seed);
  const sides = planBlocks(random, plan.mostPairCount);
  let shock = random.normal() * shockSpread;
  const logs = sides.map((side) => {
    shock = 0.8 * shock + 0.6 * shockSpread * random.normal();
    return { side, log: shock + 0.01 * random.normal() + (side === 'candidate' ? Math.log(effect) : 0) };
  });
  return Array.from({ length: plan.mostPairCount }, (_, pairIndex) => {
    const both = logs.slice(2 * pairIndex, 2 * pairIndex + 2);
    const control = Math.exp(both.find((block) => block.side === 'control')?.log ?? 0);
    const candidate = Math.exp(both.find((block) => block.side === 'candidate')?.log ?? 0);
    return {
      pairIndex,
      controlCost: control,
      candidateCost: candidate,
      logCostRatio: Math.log(candidate / control),
      controlItlP99Ms: 20 * control,
      candidateItlP99Ms: 20 * candidate * itlRatio,
      controlStepCount: 100,
      candidateStepCount: 100,
    };
  });
}

/** Reads the verdict after every pair, as the driver does, and stops at the first that decides. */
function runCanary(pairs: readonly PairResult[], judging = plan): { verdict: string; pairCount: number } {
  for (let count = 1; count <= pairs.length; count += 1) {
    const { verdict } = judgeCanary(pairs.slice(0, count), judging);
    if (verdict !== 'inconclusive') return { verdict, pairCount: count };
  }
  return { verdict: 'inconclusive', pairCount: pairs.length };
}

test('two equal paths get a verdict in at most 6 % of 300 canaries under correlated noise', () => {
  const verdicts = Array.from({ length: 300 }, (_, seed) => runCanary(noisyPairs(seed, 1)).verdict);
  expect(verdicts.filter((verdict) => verdict !== 'inconclusive').length).toBeLessThanOrEqual(18);
  expect(verdicts.filter((verdict) => verdict === 'better').length).toBeLessThanOrEqual(6);
});

test.each([
  [1.05, 0.03, 'worse', 'better'],
  [1.12, 0.05, 'worse', 'better'],
  [0.95, 0.03, 'better', 'worse'],
  [0.9, 0.05, 'better', 'worse'],
])(
  'a cost ratio of %s under a load shock of %s is found %s in 95 of 100 canaries and never %s',
  (effect, shock, wanted, never) => {
    const verdicts = Array.from(
      { length: 100 },
      (_, seed) => runCanary(noisyPairs(1000 + seed, effect, 1, shock)).verdict,
    );
    expect(verdicts.filter((verdict) => verdict === wanted).length).toBeGreaterThanOrEqual(95);
    expect(verdicts).not.toContain(never);
  },
);

/** Blocks whose work is drawn, and whose cost falls with it whichever path they run. */
function loadedPairs(seed: number, effect: number, isSaturated = false): PairResult[] {
  const random = seededRandom(seed);
  return Array.from({ length: plan.mostPairCount }, (_, pairIndex) => {
    const logWorkRatio = 0.4 * random.normal() + (isSaturated ? 0.3 : 0);
    const load = isSaturated ? 0 : -0.25 * logWorkRatio;
    const logCostRatio = Math.log(effect) + load + 0.04 * random.normal();
    return {
      ...{ pairIndex, controlCost: 1, candidateCost: Math.exp(logCostRatio), logCostRatio, logWorkRatio },
      ...{ controlItlP99Ms: 20, candidateItlP99Ms: 20, controlStepCount: 100, candidateStepCount: 100 },
    };
  });
}
const withoutWork = (pairs: readonly PairResult[]): PairResult[] =>
  pairs.map(({ logWorkRatio: _, ...pair }) => pair);

test('what the load did by chance is taken out of the comparison, and no difference is made of it', () => {
  const seeds = Array.from({ length: 200 }, (_, seed) => 3000 + seed);
  const found = (of: (pairs: PairResult[]) => PairResult[]) =>
    seeds.filter((seed) => runCanary(of(loadedPairs(seed, 0.93))).verdict === 'better').length;
  expect(found((pairs) => pairs)).toBeGreaterThan(1.5 * found(withoutWork));
  const equal = seeds.map((seed) => runCanary(loadedPairs(seed, 1)).verdict);
  expect(equal.filter((verdict) => verdict !== 'inconclusive').length).toBeLessThanOrEqual(12);
  // A saturated worker does more work under the better path: that is no chance.
  const ahead = loadedPairs(1, 0.93, true);
  expect(costsAtEqualLoad(ahead)).toEqual(ahead.map(({ logCostRatio }) => logCostRatio));
});

test('nothing is promoted before eight pairs, and a shorter plan promotes with its last pair or not at all', () => {
  const clear = noisyPairs(3, 0.7);
  const pairsUntilPromoted = (change: Partial<JudgingPlan>): number | null => {
    const judging = { ...plan, leastPairCountToPromote: 8, ...change };
    const { verdict, pairCount } = runCanary(clear.slice(0, judging.mostPairCount), judging);
    return verdict === 'better' ? pairCount : null;
  };
  expect(pairsUntilPromoted({})).toBe(8);
  expect(pairsUntilPromoted({ mostPairCount: 6 })).toBe(6);
  expect(pairsUntilPromoted({ leastPairCount: 2, mostPairCount: 3 })).toBeNull();
  expect(pairsUntilPromoted({ leastPairCount: 2, leastPairCountToPromote: 3, mostPairCount: 3 })).toBe(3);
  expect(runCanary(clear).pairCount).toBe(4);
  // What is dearer goes as early as before.
  expect(runCanary(noisyPairs(3, 1.4), { ...plan, leastPairCountToPromote: 8 })).toEqual({
    verdict: 'worse',
    pairCount: 4,
  });
});

test.each([4, 6, 12])(
  'of 600 canaries of equal paths at most one in a hundred is promoted by a plan of %s pairs',
  (mostPairCount) => {
    const judging = { ...plan, leastPairCountToPromote: 8, mostPairCount };
    const promoted = Array.from({ length: 600 }, (_, seed) =>
      runCanary(loadedPairs(20_000 + seed, 1).slice(0, mostPairCount), judging),
    ).filter(({ verdict }) => verdict === 'better');
    expect(promoted.length).toBeLessThanOrEqual(6);
  },
);

test('steps that are settling or of another path are left out, and thin blocks are not compared', () => {
  const prices = freezePrices(fit, [step({})]);
  const question = {
    pairIndex: 0,
    controlPathId: 'a',
    candidatePathId: 'b',
    prices,
    itlObjectiveMs: 0,
    leastStepsPerBlock: 3,
    controlSteps: [1, 2, 3].map(() => step({})),
  };
  const candidate = [1, 2, 3].map(() => step({ pathId: 'b', deviceMs: 3 }));
  const noise = [
    step({ pathId: 'a', deviceMs: 900 }),
    step({ pathId: 'b', isSettling: true, deviceMs: 900 }),
  ];
  const pair = judgePair({ ...question, candidateSteps: [...noise, ...candidate] });
  expect(pair?.logCostRatio).toBeCloseTo(Math.log(0.5), 9);
  expect(pair?.candidateStepCount).toBe(3);
  expect(judgePair({ ...question, candidateSteps: candidate.slice(0, 2) })).toBeNull();
});

test('the effect of a larger batch is seen, not modelled away', () => {
  const one = step({ tokenCount: 1, decodeSequenceCount: 1, decodeContextTokens: 100, deviceMs: 5.2 });
  const prices = freezePrices(fit, [one]);
  const alone = Array.from({ length: 40 }, () => one);
  const together = Array.from({ length: 10 }, () => step({ pathId: 'b', deviceMs: 5.9 }));
  const pair = judgePair({
    pairIndex: 0,
    controlSteps: alone,
    candidateSteps: together,
    controlPathId: 'a',
    candidatePathId: 'b',
    prices,
    itlObjectiveMs: 0,
    leastStepsPerBlock: 5,
  });
  expect(pair?.logCostRatio).toBeLessThan(Math.log(0.35));
});

test('typical steps are worth together what the fit predicts of them, its residuals included', () => {
  const decode = step({});
  const prefill = step({
    tokenCount: 68,
    prefillSequenceCount: 1,
    prefillTokenCount: 64,
    prefillAttention: 64 * 32,
    prefillDeviceMs: 1,
  });
  const residuals = {
    center: [0, 0, 0, 0, 0],
    scale: [1, 1, 1, 1, 1],
    places: [...residualPlace(decode), ...residualPlace(prefill)],
    weights: [1e6, 1e6],
    logRatios: [Math.log(1.4), Math.log(0.8)],
  };
  for (const model of [fit, { ...fit, residuals }]) {
    const typical = [decode, decode, prefill];
    const predictedMs = typical.reduce((sum, one) => sum + predictMs(model, one), 0);
    expect(standardMs(typical, freezePrices(model, typical))).toBeCloseTo(predictedMs, 9);
  }
  // Decoding takes longer than the seven terms say: a decoded token is worth more beside a prompt token.
  const ratioOf = ({ decodeTokenMs, prefillTokenMs }: ReturnType<typeof freezePrices>) =>
    decodeTokenMs / prefillTokenMs;
  const typical = [decode, decode, prefill];
  expect(ratioOf(freezePrices({ ...fit, residuals }, typical))).toBeGreaterThan(
    1.2 * ratioOf(freezePrices(fit, typical)),
  );
});

test('wrong guesses are worth nothing, right ones what as many steps without would have been', () => {
  const prices = freezePrices(fit, [step({})]);
  const plainMs = standardMs([step({})], prices);
  const wrong = step({ tokenCount: 36, draftedTokenCount: 32, deviceMs: 9 });
  expect(standardMs([wrong], prices)).toBeCloseTo(plainMs, 9);
  const right = step({ tokenCount: 12, draftedTokenCount: 8, acceptedDraftCount: 8, deviceMs: 7 });
  expect(standardMs([right], prices)).toBeCloseTo(3 * plainMs, 9);
});

test('tokens computed again after a preemption are worth nothing', () => {
  const prices = freezePrices(fit, [step({})]);
  const prompt = { tokenCount: 64, decodeSequenceCount: 0, decodeContextTokens: 0, prefillTokenCount: 64 };
  const useful = step({ ...prompt, prefillSequenceCount: 1, deviceMs: 30, prefillDeviceMs: 30 });
  const again = step({ ...useful, prefillDeviceMs: 0, recomputeDeviceMs: 30 });
  const base = {
    pairIndex: 0,
    controlPathId: 'a',
    candidatePathId: 'a',
    prices,
    itlObjectiveMs: 0,
    leastStepsPerBlock: 1,
  };
  const pair = judgePair({ ...base, controlSteps: [useful], candidateSteps: [useful, again] });
  expect(pair?.logCostRatio).toBeCloseTo(Math.log(2), 9);
});

test('the ITL guard trips after two pairs above its limit, and never below the objective', () => {
  const pairs = noisyPairs(5, 0.9, 2.2);
  expect(runCanary(pairs)).toEqual({ verdict: 'worse', pairCount: 2 });
  expect(judgeCanary(pairs.slice(0, 1), plan).isGuardTripped).toBe(false);
  expect(judgeCanary(pairs.slice(0, 2), { ...plan, itlObjectiveMs: 100 }).isGuardTripped).toBe(false);
});

test('a path approved for its gaps is judged by them, within the cost it was approved with', () => {
  const judging: JudgingPlan = { ...plan, aim: 'itl', approvedLogCost: Math.log(1.1) };
  expect(runCanary(noisyPairs(7, 1.05, 0.4), judging).verdict).toBe('better');
  expect(runCanary(noisyPairs(7, 1.6, 0.4), judging).verdict).toBe('worse');
  expect(runCanary(noisyPairs(7, 1, 1), judging).verdict).toBe('inconclusive');
});

test('a path approved for its good answers must show that it surely costs no more than was approved, and keeps its gaps', () => {
  const judging: JudgingPlan = { ...plan, aim: 'goodAnswers', approvedLogCost: Math.log(1.2) };
  expect(runCanary(noisyPairs(7, 1, 1)).verdict).toBe('inconclusive');
  expect(runCanary(noisyPairs(7, 1, 1), judging).verdict).toBe('better');
  expect(runCanary(noisyPairs(7, 1.05, 1), judging).verdict).toBe('better');
  expect(runCanary(noisyPairs(7, 1.2, 1), judging).verdict).toBe('inconclusive');
  expect(runCanary(noisyPairs(7, 1.6, 1), judging).verdict).toBe('worse');
  expect(runCanary(noisyPairs(7, 1, 2.2), { ...judging, itlObjectiveMs: 1 }).verdict).toBe('worse');
});

test('each pair runs both sides once and the order varies', () => {
  const blocks = planBlocks(seededRandom(1), 40);
  const first = Array.from({ length: 40 }, (_, pair) => blocks[2 * pair]);
  expect(blocks.filter((side) => side === 'control')).toHaveLength(40);
  for (let pair = 0; pair < 40; pair += 1) expect(blocks[2 * pair]).not.toBe(blocks[2 * pair + 1]);
  expect(new Set(first).size).toBe(2);
});

test('a path whose blocks stand at the objective is promoted by its counted gaps, sooner where canaries before counted some', () => {
  const random = seededRandom(8);
  const standing = (lateShare: number): PairResult[] =>
    Array.from({ length: 24 }, (_, pairIndex) => ({
      ...{ pairIndex, controlCost: 1, candidateCost: 0.7, logCostRatio: -0.36 + 0.02 * random.normal() },
      ...{ controlItlP99Ms: 60, candidateItlP99Ms: pairIndex % 2 === 0 ? 142 : 156 },
      ...{ controlStepCount: 100, candidateStepCount: 100 },
      controlGaps: { count: 100, lateCount: 0 },
      candidateGaps: { count: 100, lateCount: 100 * lateShare },
    }));
  const judging = { ...plan, mostPairCount: 24, itlObjectiveMs: 150 };
  const earlier = { ...{ count: 1000, lateCount: 2 }, ...{ objectiveMs: 150, canaryCount: 3, lastAt: 0 } };
  const uncounted = standing(0).map(({ candidateGaps: _, controlGaps: __, ...pair }) => pair);
  expect(runCanary(uncounted, judging).verdict).toBe('inconclusive');
  expect(runCanary(standing(0.002), judging)).toEqual({ verdict: 'better', pairCount: 7 });
  expect(runCanary(standing(0.002), { ...judging, earlierGaps: earlier }).pairCount).toBe(4);
  // It is not what it was: what canaries counted before does not carry it.
  expect(runCanary(standing(0.02), { ...judging, earlierGaps: earlier }).verdict).toBe('inconclusive');
});

test('counted gaps that say nothing yet take nothing from what p99s say', () => {
  const pairs = [52, 58, 49, 57, 51, 59, 54, 57.2, 50].map(
    (candidateItlP99Ms, pairIndex): PairResult => ({
      ...{ pairIndex, controlCost: 1, candidateCost: 0.8, logCostRatio: -0.22 + 0.001 * pairIndex },
      ...{ controlItlP99Ms: 40, candidateItlP99Ms, controlStepCount: 100, candidateStepCount: 100 },
      candidateGaps: { count: 20, lateCount: 0 },
    }),
  );
  const judging = { ...plan, mostPairCount: 24, itlObjectiveMs: 60 };
  const uncounted = pairs.map(({ candidateGaps: _, ...pair }) => pair);
  expect(runCanary(uncounted, judging)).toEqual({ verdict: 'better', pairCount: 8 });
  expect(runCanary(pairs, judging)).toEqual({ verdict: 'better', pairCount: 8 });
});

test('p99s well below the objective promote nothing whose late gaps, all in few blocks, are more than one in a hundred', () => {
  const inBursts = (lateCount: number): PairResult[] =>
    Array.from({ length: 24 }, (_, pairIndex) => {
      const isBurst = pairIndex % 6 === 1;
      return {
        ...{ pairIndex, controlCost: 1, candidateCost: 0.8, logCostRatio: -0.22 + 0.001 * pairIndex },
        ...{ controlItlP99Ms: 30, candidateItlP99Ms: isBurst ? 62 : 40 },
        ...{ controlStepCount: 100, candidateStepCount: 100 },
        candidateGaps: { count: 100, lateCount: isBurst ? lateCount : 0 },
      };
    });
  const judging = { ...plan, mostPairCount: 24, itlObjectiveMs: 60 };
  expect(runCanary(inBursts(5), judging).verdict).toBe('better');
  expect(runCanary(inBursts(12), judging).verdict).toBe('inconclusive');
});

test('two late gaps of a hundred in two pairs running are no break, and ten are', () => {
  const judging = { ...plan, itlObjectiveMs: 50 };
  const late = (lateCount: number): PairResult[] =>
    [0, 1].map((pairIndex) => ({
      ...{ pairIndex, controlCost: 1, candidateCost: 0.8, logCostRatio: -0.2 },
      ...{ controlItlP99Ms: 30, candidateItlP99Ms: 55, controlStepCount: 100, candidateStepCount: 100 },
      candidateGaps: { count: 100, lateCount },
    }));
  expect(judgeCanary(late(2), judging).isGuardTripped).toBe(false);
  expect(judgeCanary(late(10), judging).isGuardTripped).toBe(true);
  const uncounted = late(2).map(({ candidateGaps: _, ...pair }) => pair);
  expect(judgeCanary(uncounted, judging).isGuardTripped).toBe(true);
});

test('a cheaper path that breaks the objective its incumbent keeps is rolled back, and one that does now and then is not promoted', () => {
  const pair = (pairIndex: number, candidateItlP99Ms: number): PairResult => ({
    pairIndex,
    controlCost: 1,
    candidateCost: 0.8,
    logCostRatio: -0.22 + 0.001 * pairIndex,
    controlItlP99Ms: 45,
    candidateItlP99Ms,
    controlStepCount: 50,
    candidateStepCount: 50,
  });
  const strict = { ...plan, itlObjectiveMs: 50 };
  const judge = (gaps: readonly number[], over = strict) =>
    judgeCanary(
      gaps.map((gap, index) => pair(index, gap)),
      over,
    ).verdict;
  expect(judge([55, 54, 56, 55, 55])).toBe('worse');
  expect(judge([55, 48, 56, 48, 48, 55])).toBe('inconclusive');
  // Within it, but not surely.
  expect(judge([48, 47, 49, 48, 51, 48])).toBe('inconclusive');
  expect(judge([41, 40, 42, 41, 51, 41, 40, 41])).toBe('better');
  // Without an objective, or where the incumbent misses it itself, only the ratio guards.
  expect(judge([55, 54, 56, 55, 55], plan)).toBe('better');
  expect(judge([55, 54, 56, 55, 55], { ...plan, itlObjectiveMs: 40 })).toBe('better');
});
