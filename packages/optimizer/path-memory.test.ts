import { expect, test } from 'vitest';
import { candidatePaths } from './candidate-paths.ts';
import {
  bestKnown,
  earlierGapsOf,
  faultyChanges,
  inRegime,
  isTriedLately,
  itlErrorsOf,
  itlSpread,
  lateGapsOfSides,
  realisedOf,
  replaySpread,
  type TriedPath,
  underLivingIds,
} from './path-memory.ts';
import { seededRandom } from './seeded-random.ts';
import { testEnvelope, testPath } from './test-world.ts';

const small = { ...testPath, tokenBudget: 64 };
const tried = (change: Partial<TriedPath>): TriedPath => ({
  deviceKind: 'cpu',
  modelHash: 'm',
  regimeId: 'r',
  from: testPath,
  to: small,
  state: 'kept',
  endedAt: 0,
  isPathsFault: false,
  cost: null,
  replayedLogCost: null,
  ...change,
});

test('replays are trusted to 6 % at first, then as far as canaries bear them out', () => {
  expect(replaySpread([])).toBeCloseTo(0.06, 12);
  const canary = (off: number) => tried({ replayedLogCost: -0.1, cost: { mean: -0.1 + off, variance: 0 } });
  expect(replaySpread(Array.from({ length: 50 }, () => canary(0.02)))).toBeLessThan(0.03);
  expect(replaySpread(Array.from({ length: 50 }, () => canary(-0.15)))).toBeGreaterThan(0.14);
  // What the canary itself could not resolve says nothing against the replay.
  const blurred = tried({ replayedLogCost: -0.1, cost: { mean: 0, variance: 0.01 } });
  expect(replaySpread(Array.from({ length: 50 }, () => blurred))).toBeLessThan(0.06);
});

test('both sides of a canary say how far the ITL p99 was from what its proposal foretold', () => {
  const predicted = [
    {
      metric: 'itlP99Ms' as const,
      now: { value: 40, low: 40, high: 40 },
      predicted: { value: 50, low: 50, high: 50 },
      change: { value: 0.25, low: 0.25, high: 0.25 },
    },
  ];
  const pair = (pairIndex: number, controlItlP99Ms: number, candidateItlP99Ms: number) => ({
    ...{ pairIndex, controlCost: 1, candidateCost: 1, logCostRatio: 0, controlItlP99Ms, candidateItlP99Ms },
    ...{ controlStepCount: 9, candidateStepCount: 9 },
  });
  const sides = { from: testPath, to: small };
  const pairs = [pair(0, 36, 40), pair(1, 36, 40), pair(2, 0, 40), pair(3, 36, 40)];
  const [ofNow, ofCandidate] = itlErrorsOf(sides, predicted, pairs);
  expect(ofNow).toMatchObject({ path: testPath, mean: expect.closeTo(Math.log(0.9), 9) });
  expect(ofCandidate).toMatchObject({ path: small, mean: expect.closeTo(Math.log(0.8), 9) });
  expect(itlErrorsOf(sides, predicted, pairs.slice(0, 1))).toEqual([]);
  expect(itlErrorsOf(sides, [], pairs)).toEqual([]);

  expect(itlSpread([])).toBeCloseTo(0.1, 12);
  const off = (log: number) =>
    Array.from({ length: 50 }, () => tried({ itlErrors: [{ path: small, mean: log, variance: 0 }] }));
  expect(itlSpread(off(-0.3))).toBeGreaterThan(0.28);
  expect(itlSpread(off(0.01))).toBeLessThan(0.05);
});

test("a side's gaps are those of the pairs whose other side kept the objective", () => {
  const judgingPlan = {
    ...{ aim: 'deviceMs' as const, leastPairCount: 4, mostPairCount: 12, itlGuardRatio: 1.5 },
    ...{ itlObjectiveMs: 50, approvedLogCost: 0 },
  };
  const pair = (controlItlP99Ms: number, candidateItlP99Ms: number) => ({
    ...{
      pairIndex: 0,
      controlCost: 1,
      candidateCost: 1,
      logCostRatio: 0,
      controlItlP99Ms,
      candidateItlP99Ms,
    },
    ...{ controlStepCount: 9, candidateStepCount: 9 },
    controlGaps: { count: 80, lateCount: 8 },
    candidateGaps: { count: 90, lateCount: 1 },
  });
  const sides = { from: testPath, to: small };
  const pairs = [pair(40, 45), pair(70, 45), pair(40, 45)];
  expect(lateGapsOfSides(sides, judgingPlan, pairs)).toEqual([
    { path: testPath, objectiveMs: 50, count: 240, lateCount: 24 },
    { path: small, objectiveMs: 50, count: 180, lateCount: 2 },
  ]);
  expect(lateGapsOfSides(sides, { ...judgingPlan, itlObjectiveMs: 0 }, pairs)).toEqual([]);
});

test('gaps of earlier canaries count for a path that was live in the regime, by age, up to a thousand, and of the same objective', () => {
  const day = 24 * 3_600_000;
  const seen = (endedAt: number, lateCount: number, change: Partial<TriedPath> = {}) =>
    tried({ endedAt, lateGaps: [{ path: small, objectiveMs: 50, count: 400, lateCount }], ...change });
  const won = seen(10 * day, 2, { state: 'live' });
  expect(earlierGapsOf([seen(10 * day, 2)], small, 50, 10 * day)).toBeNull();
  expect(earlierGapsOf([won], small, 60, 10 * day)).toBeNull();
  expect(earlierGapsOf([won], testPath, 50, 10 * day)).toBeNull();
  expect(earlierGapsOf([won], small, 50, 18 * day)).toBeNull();
  expect(earlierGapsOf([won], small, 50, 11 * day)).toEqual({
    ...{ count: 200, lateCount: 1, objectiveMs: 50, canaryCount: 1, lastAt: 10 * day },
  });
  // Lost ones count as well, and however many there are, a thousand gaps are what they weigh.
  const all = [won, seen(10 * day, 10), seen(10 * day, 4, { from: small, to: testPath }), seen(10 * day, 0)];
  expect(earlierGapsOf(all, small, 50, 10 * day)).toMatchObject({
    count: 1000,
    lateCount: 10,
    canaryCount: 4,
  });
});

test('what a canary measured is a mean whose variance covers the truth, a wild pair cut', () => {
  const random = seededRandom(3);
  let covered = 0;
  for (let run = 0; run < 400; run += 1) {
    const pairs = Array.from({ length: 8 }, () => -0.05 + 0.04 * random.normal());
    const realised = realisedOf(pairs);
    if (realised === null) throw new Error('eight pairs');
    if (Math.abs(realised.mean + 0.05) < 1.645 * Math.sqrt(realised.variance)) covered += 1;
  }
  expect(covered / 400).toBeGreaterThan(0.85);
  expect(covered / 400).toBeLessThan(0.97);
  expect(realisedOf([-0.05, -0.04, -0.06, -0.05, -0.045, 2])?.mean).toBeLessThan(0);
  expect(realisedOf([0.1])).toBeNull();
});

test('what failed by itself is not tried again for a day, nor what goes further the same way', () => {
  const wide = { ...testPath, tokenBudget: 128, maxRunningCount: 16 };
  const failed = tried({ from: { ...wide, tokenBudget: 32 }, to: wide, isPathsFault: true, state: 'failed' });
  const incumbent = { ...wide, tokenBudget: 32 };
  const budgets = (now: number) =>
    new Set(
      candidatePaths(incumbent, testEnvelope, faultyChanges([failed], now)).map((path) => path.tokenBudget),
    );
  expect(budgets(1000)).toEqual(new Set([16, 32, 64]));
  expect(budgets(25 * 3_600_000)).toContain(512);
  const interrupted = { ...failed, isPathsFault: false };
  expect(faultyChanges([interrupted], 1000)).toEqual([]);
  const kernel = tried({
    to: { ...testPath, linear: 'linear.reference' },
    isPathsFault: true,
    state: 'failed',
  });
  const left = candidatePaths(testPath, testEnvelope, faultyChanges([kernel], 1000));
  expect(left.some(({ linear }) => linear === 'linear.reference')).toBe(false);
  expect(left.some(({ linear }) => linear === testPath.linear)).toBe(true);
});

test('what was tried in a regime that was merged into another counts for that one, and of a forgotten one for none', () => {
  const memory = ['r', 'merged', 'forgotten', ''].map((regimeId) => tried({ regimeId, state: 'live' }));
  expect(inRegime(memory, 'r')).toHaveLength(1);
  const living = underLivingIds(memory, (id) => ({ r: 'r', merged: 'r' })[id] ?? '');
  expect(living.map(({ regimeId }) => regimeId)).toEqual(['r', 'r', '', '']);
  expect(inRegime(living, 'r')).toHaveLength(2);
});

test('a regime remembers the path it went live with, and which comparisons are fresh', () => {
  const first = tried({ state: 'live', endedAt: 1000 });
  const later = tried({ from: small, to: { ...small, maxRunningCount: 8 }, state: 'live', endedAt: 2000 });
  const kept = tried({ from: later.to, to: testPath, endedAt: 3000 });
  const taken = tried({ from: later.to, to: testPath, state: 'rolledBack', endedAt: 4000 });
  const elsewhere = tried({ regimeId: 'other', to: testPath, from: small, state: 'live', endedAt: 5000 });
  const all = [taken, kept, later, first, elsewhere];
  expect(bestKnown(inRegime(all, 'r'))).toEqual(later.to);
  expect(bestKnown(inRegime(all, 'unseen'))).toBeNull();
  expect(inRegime([tried({ regimeId: '' })], '')).toEqual([]);
  expect(isTriedLately(all, testPath, 10_000)).toBe(true);
  expect(isTriedLately(all, testPath, 3_600_000)).toBe(false);
  expect(isTriedLately(all, later.to, 10_000)).toBe(false);
  expect(isTriedLately([tried({ state: 'rolledBack', isCutShort: true })], small, 10)).toBe(false);
  // What was live before lost to what went live after it.
  expect(isTriedLately([later], small, 10_000)).toBe(true);
});
