import {
  diffPaths,
  type ExecutionPath,
  kernelsId,
  pathFaults,
  pathId,
} from '@variator/kernels/execution-path';
import { expect, test } from 'vitest';
import { candidatePaths, isRisky } from './candidate-paths.ts';
import type { TriedPath } from './path-memory.ts';
import { approvedLogCostOf } from './proposal.ts';
import { type ProposeQuestion, propose } from './propose.ts';
import type { Arrival } from './replay.ts';
import { seededRandom } from './seeded-random.ts';
import { testEnvelope, testFit, testPath } from './test-world.ts';

const relaxed = { ttftMs: 2000, itlMs: 400 };

function traffic(count: number, gapMs: number, prompt: number, answer: number, seed = 1): Arrival[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, (_, i) => ({
    at: 1e6 + gapMs * (i + random.uniform()),
    promptTokenCount: Math.round(prompt * (0.7 + 0.6 * random.uniform())),
    cachedTokenCount: 0,
    completionTokenCount: Math.max(1, Math.round(answer * (0.7 + 0.6 * random.uniform()))),
    session: `session-${i}`,
    tenant: '',
    serviceTier: 'default' as const,
    objectives: relaxed,
    isStreamed: true,
    e2eMs: 1500,
  })).sort((a, b) => a.at - b.at);
}

function ask(
  incumbent: Partial<ExecutionPath>,
  arrivals: readonly Arrival[],
  more: Partial<Omit<ProposeQuestion, 'simulate'>> = {},
) {
  const path = { ...testPath, ...incumbent };
  return propose({
    workerId: 'w',
    incumbent: path,
    candidates: candidatePaths(path, testEnvelope),
    fits: [testFit],
    arrivals,
    envelope: testEnvelope,
    objectives: relaxed,
    deviceUsdPerHour: 0.08,
    evidence: {
      windowStartedAt: 1e6,
      windowEndedAt: 1e6 + 60_000,
      stepCount: 900,
      regimeId: 'regime-1',
      regimeName: 'short chats',
    },
    tried: [],
    leastGain: 0.02,
    liveItlP99Ms: null,
    seed: 1,
    ...more,
  });
}

test('from a running batch of one under load it proposes a larger one, with numbers and reasons', () => {
  const { draft } = ask({ maxRunningCount: 1, tokenBudget: 128 }, traffic(90, 200, 50, 40));
  expect(draft?.to.maxRunningCount).toBeGreaterThan(1);
  expect(draft?.title).toMatch(
    /^(Raise|Lower) .*the largest running batch to \d+.*, \d+ % fewer device ms per request \(\d+ to \d+ %\), TTFT p95 \d+ % shorter$/,
  );
  expect(draft?.reason).toContain('90 requests of the last 60 s (short chats)');
  expect(draft?.reason).toContain('A step computes');
  const cost = draft?.metrics.find(({ metric }) => metric === 'deviceMsPerRequest');
  expect(cost?.change.high).toBeLessThan(0);
  expect(cost?.change.low).toBeLessThan(cost?.change.value ?? 0);
  expect(draft?.evidence.requestCount).toBe(90);
  expect(draft?.evidence.fitIds).toEqual([testFit.fitId]);
  const considered = draft?.evidence.considered ?? [];
  expect(considered[0]?.changes).toEqual([]);
  const proposed = considered.find(
    ({ changes }) => JSON.stringify(changes) === JSON.stringify(draft?.changes),
  );
  expect(proposed?.metrics.find(({ metric }) => metric === 'deviceMsPerRequest')?.interval).not.toBeNull();
  expect(proposed?.keepsObjectives).toBe(true);
  for (const { now, predicted, change } of draft?.metrics ?? []) {
    for (const { value, low, high } of [now, predicted, change]) {
      expect([value, low, high].every(Number.isFinite)).toBe(true);
      expect(low).toBeLessThanOrEqual(high);
    }
  }
});

test('from the best path it proposes nothing and says what it found', () => {
  const { draft } = ask({ maxRunningCount: 1, tokenBudget: 128 }, traffic(90, 200, 50, 40));
  const again = ask(draft?.to ?? {}, traffic(90, 200, 50, 40, 2));
  expect(again.draft).toBeNull();
  expect(again.note).toMatch(/^The best of \d+ paths/);
});

test('a budget that saves device time but breaks the ITL objective is not proposed', () => {
  const offline = traffic(60, 300, 600, 8);
  const free = ask({ tokenBudget: 16, maxRunningCount: 8 }, offline, {});
  expect(free.draft?.to.tokenBudget).toBeGreaterThanOrEqual(128);
  const strict = offline.map((arrival) => ({ ...arrival, objectives: { ttftMs: 2000, itlMs: 30 } }));
  const { draft } = ask({ tokenBudget: 16, maxRunningCount: 8 }, strict);
  const itl = draft?.metrics.find(({ metric }) => metric === 'itlP99Ms');
  expect(itl?.predicted.value ?? 0).toBeLessThanOrEqual(30);
});

test("gaps of answers that are not streamed are nobody's: they bind no objective", () => {
  const offline = traffic(60, 300, 600, 8).map((arrival) => ({
    ...arrival,
    isStreamed: false,
    objectives: { ttftMs: 2000, itlMs: 1 },
  }));
  expect(ask({ tokenBudget: 16, maxRunningCount: 8 }, offline).draft?.to.tokenBudget).toBeGreaterThanOrEqual(
    128,
  );
});

test('where the live path misses the ITL objective, a path that meets it is proposed for that, though it costs more', () => {
  const chats = traffic(100, 250, 50, 40);
  const long = traffic(50, 500, 500, 4, 5);
  const mixed = [...chats, ...long]
    .map((arrival) => ({ ...arrival, objectives: { ttftMs: 2000, itlMs: 30 } }))
    .sort((a, b) => a.at - b.at);
  const { draft } = ask({ tokenBudget: 512 }, mixed);
  expect(draft?.to.tokenBudget).toBeLessThan(512);
  expect(draft?.title).toMatch(/ITL p99/);
  expect(draft?.reason).toContain('missed now, is kept');
  expect(draft?.aim).toBe('itl');
});

test('a path that answers more people in time is proposed for that, and its canary may cost a part of the gain', () => {
  // One at a time does not keep up, and the queue costs most of them their first token in time.
  const { draft } = ask({ maxRunningCount: 1, tokenBudget: 128 }, traffic(90, 200, 50, 40));
  if (draft === null) throw new Error('nothing was proposed');
  expect(draft.aim).toBe('goodAnswers');
  expect(draft.title).toMatch(/answers within their objectives, .* device ms per request/);
  const logGoodAnswers = draft.evidence.replayedLogGoodAnswers ?? 0;
  expect(logGoodAnswers).toBeGreaterThan(0.1);
  const mostLogCost = approvedLogCostOf(draft);
  expect(mostLogCost).toBeGreaterThan(0);
  expect(mostLogCost).toBeLessThanOrEqual(Math.min(Math.log(1.25), logGoodAnswers / 2));
  expect(draft.reason).toContain(
    `no more than ${(100 * Math.expm1(mostLogCost)).toFixed(0)} % more device ms`,
  );
  // Who has all answers in time already is offered fewer device ms, and nothing else.
  const idle = ask({ maxRunningCount: 1, tokenBudget: 128 }, traffic(60, 1000, 50, 20));
  expect(idle.draft?.aim ?? 'deviceMs').toBe('deviceMs');
  expect(idle.draft?.evidence.replayedLogGoodAnswers).toBeUndefined();
});

test('a faster kernel with a fit of its own is proposed, and its numerics are named', () => {
  const slow = { ...testPath, linear: 'linear.reference' } as const;
  const slowFit = {
    ...testFit,
    fitId: 'slow',
    kernelsId: kernelsId(slow),
    betaMs: { ...testFit.betaMs, perStep: 12, perToken: 1.5, perTokenAboveKnee: 0.5 },
  };
  const { draft } = ask(slow, traffic(80, 400, 50, 30), { fits: [testFit, slowFit] });
  expect(draft?.changes[0]).toEqual({
    setting: 'linear',
    from: 'linear.reference',
    to: 'linear.int8-avx512vnni',
  });
  expect(draft?.title).toContain('Run the linear layers with linear.int8-avx512vnni');
  expect(draft?.reason).toContain('numerics differ');
});

test('without a fit of the live path, or without traffic, there is no proposal', () => {
  expect(ask({}, traffic(10, 100, 50, 10), { fits: [] }).note).toContain('no fit');
  expect(ask({}, []).note).toContain('no traffic');
});

const tried = (from: ExecutionPath, to: ExecutionPath, change: Partial<TriedPath>): TriedPath => ({
  deviceKind: 'cpu',
  modelHash: 'm',
  regimeId: 'regime-1',
  from,
  to,
  state: 'live',
  // Half an hour and more ago: it may be tried again.
  endedAt: 0,
  isPathsFault: false,
  cost: null,
  replayedLogCost: null,
  ...change,
});
const long = { windowStartedAt: 1e7, windowEndedAt: 1e7 + 60_000, stepCount: 900, regimeName: 'short chats' };

test('in a regime that comes again its best known path goes first, however many settings away', () => {
  const now = { ...testPath, maxRunningCount: 1, tokenBudget: 128 };
  const best = { ...testPath, maxRunningCount: 16, tokenBudget: 64 };
  const lateGaps = [{ path: best, objectiveMs: relaxed.itlMs, count: 500, lateCount: 1 }];
  // Just before it left, by this window's clock.
  const endedAt = long.windowEndedAt - 3_600_000;
  const memory = [tried(testPath, best, { endedAt, cost: { mean: -0.1, variance: 1e-4 }, lateGaps })];
  const evidence = { ...long, regimeId: 'regime-1' };
  const { draft } = ask(now, traffic(90, 200, 50, 40), { tried: memory, evidence });
  expect(draft?.to).toEqual(best);
  expect(draft?.reason).toContain('the best known path when this workload was last here');
  expect(draft?.reason).toContain('In a canary of this workload 0.2 % of its gaps were longer than 400 ms');
  expect(draft?.evidence.earlierGaps).toMatchObject({ objectiveMs: 400, canaryCount: 1, lastAt: endedAt });
  const elsewhere = ask(now, traffic(90, 200, 50, 40), {
    tried: memory,
    evidence: { ...evidence, regimeId: 'regime-2' },
  });
  expect(elsewhere.draft?.reason).toContain('keep the objective; this one is among the best');
  expect(elsewhere.draft?.evidence.earlierGaps).toBeUndefined();
});

test('a canary that found no gain corrects the replay: the path is not proposed again', () => {
  const now = { ...testPath, maxRunningCount: 1, tokenBudget: 128 };
  const evidence = { ...long, regimeId: 'regime-1' };
  // Whom nothing is late for, fewer device ms are all there is to gain.
  const patient = traffic(90, 200, 50, 40).map((arrival) => ({
    ...arrival,
    objectives: { ttftMs: 600_000, itlMs: 400 },
  }));
  const first = ask(now, patient, { evidence }).draft;
  if (first === null) throw new Error('nothing proposed');
  const one = { candidates: [first.to], evidence };
  expect(ask(now, patient, one).draft?.to).toEqual(first.to);
  const cost = { mean: 0.01, variance: 1e-6 };
  const memory = [tried(now, first.to, { state: 'kept', cost, replayedLogCost: -0.5 })];
  const { draft, note } = ask(now, patient, { ...one, tried: memory });
  expect(draft).toBeNull();
  expect(note).toMatch(/^The best of 1 paths: \+?-?\d/);
});

test('where the live gaps are shorter than replayed, what the replay puts just above the objective has a canary, and its risk is told', () => {
  const now = { tokenBudget: 16, maxRunningCount: 8 };
  const chats = traffic(80, 300, 600, 8);
  const free = ask(now, chats).draft;
  const itl = free?.metrics.find(({ metric }) => metric === 'itlP99Ms');
  const strict = chats.map((arrival) => ({
    ...arrival,
    objectives: { ttftMs: 20_000, itlMs: 0.95 * (itl?.predicted.value ?? 0) },
  }));
  const draftFor = (liveShare: number) =>
    ask(now, strict, {
      liveItlP99Ms: liveShare * (itl?.now.value ?? 0),
      candidates: free === null ? [] : [free.to],
    }).draft;
  expect(draftFor(1.3)).toBeNull();
  const risky = draftFor(0.8);
  expect(risky?.to).toEqual(free?.to);
  expect(risky?.reason).toMatch(/With \d+(\.\d)? % it misses that objective: the canary finds out/);
});

test('candidates are legal, at most two settings away, one of them risky', () => {
  const incumbent = { ...testPath, tokenBudget: 100, maxRunningCount: 3 };
  const candidates = candidatePaths(incumbent, testEnvelope);
  expect(new Set(candidates.map(pathId)).size).toBe(candidates.length);
  expect(candidates.length).toBeGreaterThan(25);
  for (const candidate of candidates) {
    const changes = diffPaths(incumbent, candidate);
    expect(pathFaults(candidate, testEnvelope)).toEqual([]);
    expect(changes.length).toBeGreaterThan(0);
    expect(changes.length).toBeLessThanOrEqual(2);
    expect(changes.filter(isRisky).length).toBeLessThanOrEqual(1);
  }
});
