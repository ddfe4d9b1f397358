import { expect, test } from 'vitest';
import type { JudgingPlan, PairResult } from './canary-judge.ts';
import { advance, beginRollout, foldRollout, type RolloutEvent } from './rollout.ts';

const judgingPlan: JudgingPlan = {
  aim: 'deviceMs',
  leastPairCount: 4,
  mostPairCount: 6,
  itlGuardRatio: 1.5,
  itlObjectiveMs: 0,
  approvedLogCost: 0,
};
const begin = beginRollout({ at: 1000, approvedBy: 'ada', judgingPlan });
const warmed: RolloutEvent[] = [
  { kind: 'prepared', at: 1100, prepareMs: 40 },
  { kind: 'checked', at: 1200, summary: '8 of 8 prompts gave equal tokens' },
];

function pairs(ratios: readonly number[], itlRatio = 1): RolloutEvent[] {
  return ratios.map((ratio, pairIndex) => {
    const pair: PairResult = {
      pairIndex,
      controlCost: 1,
      candidateCost: ratio,
      logCostRatio: Math.log(ratio),
      controlItlP99Ms: 10,
      candidateItlP99Ms: 10 * itlRatio,
      controlStepCount: 50,
      candidateStepCount: 50,
    };
    return { kind: 'pairJudged', at: 2000 + pairIndex, pair };
  });
}

test.each([
  ['a clearly cheaper path goes live', pairs([0.8, 0.81, 0.79, 0.8]), 'live', 'better'],
  ['a clearly dearer path is rolled back', pairs([1.2, 1.21, 1.19, 1.2]), 'rolledBack', 'worse'],
  ['the ITL guard rolls back at once', pairs([0.8, 0.8], 3), 'rolledBack', 'worse'],
  [
    'an inconclusive plan keeps the incumbent',
    [...pairs([1.01, 0.99, 1, 1.01, 0.98, 1]), { kind: 'planEnded', at: 3000 } as const],
    'kept',
    'inconclusive',
  ],
  [
    'a fault fails it',
    [{ kind: 'failed', at: 3000, reason: 'The worker was lost.' } as const],
    'failed',
    null,
  ],
  [
    'a person stops a canary',
    [{ kind: 'rolledBack', at: 3000, by: 'ada', reason: 'changed my mind' } as const],
    'rolledBack',
    'inconclusive',
  ],
])('%s', (_, events, state, verdict) => {
  const end = foldRollout(begin, [...warmed, ...events]);
  expect(end.state).toBe(state);
  expect(end.verdict).toBe(verdict);
  expect(end.endedAt).not.toBeNull();
  expect(end.message).not.toBe('');
});

test('what goes live says how many gaps were late, and how many in canaries before', () => {
  const earlierGaps = { ...{ count: 1000, lateCount: 2 }, ...{ objectiveMs: 20, canaryCount: 3, lastAt: 0 } };
  const counted = pairs([0.8, 0.81, 0.79, 0.8]).map((event) =>
    event.kind === 'pairJudged'
      ? { ...event, pair: { ...event.pair, candidateGaps: { count: 100, lateCount: 0 } } }
      : event,
  );
  const messageUnder = (change: Partial<JudgingPlan>): string =>
    foldRollout(
      beginRollout({ ...{ at: 1000, approvedBy: 'ada' }, judgingPlan: { ...judgingPlan, ...change } }),
      [...warmed, ...counted],
    ).message;
  expect(messageUnder({ itlObjectiveMs: 20 })).toContain('Gaps longer than 20 ms: 0.0 %.');
  expect(messageUnder({ itlObjectiveMs: 20, earlierGaps })).toContain(
    'Gaps longer than 20 ms: 0.0 %, 0.2 % in 3 canaries of this workload before.',
  );
});

test('a live path can be rolled back by a person, and what arrives late changes nothing', () => {
  const live = foldRollout(begin, [...warmed, ...pairs([0.8, 0.81, 0.79, 0.8])]);
  expect(advance(live, { kind: 'planEnded', at: 4000 })).toBe(live);
  const back = advance(live, { kind: 'rolledBack', at: 5000, by: 'ada', reason: 'to compare' });
  expect(back.state).toBe('rolledBack');
  expect(back.verdict).toBe('better');
  expect(advance(back, { kind: 'rolledBack', at: 6000, by: 'bob', reason: 'again' })).toBe(back);
});

test('a plan without traffic says so', () => {
  const skipped: RolloutEvent[] = [1, 2].map((pairIndex) => ({ kind: 'pairSkipped', at: 2000, pairIndex }));
  const end = foldRollout(begin, [...warmed, ...skipped, { kind: 'planEnded', at: 3000 }]);
  expect(end.state).toBe('kept');
  expect(end.message).toContain('Not enough traffic');
});

test('an event out of order is refused', () => {
  expect(() => advance(begin, { kind: 'planEnded', at: 1 })).toThrow('A rollout that is warming cannot take');
});

test('a path that goes live for its good answers says what it was allowed to cost', () => {
  const plan = { ...judgingPlan, aim: 'goodAnswers', approvedLogCost: Math.log(1.2) } as const;
  const allowed = beginRollout({ at: 1000, approvedBy: 'ada', judgingPlan: plan });
  const events = [...warmed, ...pairs([1.02, 1.01, 1.03, 1.02])];
  const { state, message } = foldRollout(allowed, events);
  expect(state).toBe('live');
  expect(message).toContain('Up to 20.0 % more were approved, for more answers within their objectives.');
  expect(foldRollout(begin, events).state).not.toBe('live');
});
