import { expect, test } from 'vitest';
import type { Arrival } from './replay.ts';
import { halve, medianSessionMs, rungsOf } from './search-rungs.ts';
import { seededRandom } from './seeded-random.ts';

const arrivals = (count: number, gapMs: number, turns = 1): Arrival[] =>
  Array.from({ length: count }, (_, index) => ({
    at: index * gapMs,
    promptTokenCount: 50,
    cachedTokenCount: 0,
    completionTokenCount: 20,
    session: `s-${Math.floor(index / turns)}`,
    tenant: '',
    serviceTier: 'default',
    objectives: { ttftMs: 2000, itlMs: 50 },
    isStreamed: true,
    e2eMs: 1000,
  }));

test('rungs are nested, of growing length, and bounded in work', () => {
  const dense = rungsOf(arrivals(4000, 100));
  expect(dense.map((rung) => rung.length)).toEqual([100, 200, 400]);
  expect(dense[1]?.slice(-100)).toEqual(dense[0]);
  const rungs = rungsOf(arrivals(150, 1000));
  expect(rungs.map((rung) => rung.length)).toEqual([60, 120, 150]);
  // A window shorter than the next rung is replayed in full once.
  expect(rungsOf(arrivals(50, 1000)).map((rung) => rung.length)).toEqual([50]);
});

test('the first rung is no shorter than half of all sessions', () => {
  const sessions = arrivals(400, 1500, 60);
  expect(medianSessionMs(sessions)).toBeCloseTo(59 * 1500 + 1000, 6);
  expect(rungsOf(sessions)[0]?.length).toBeGreaterThanOrEqual(60);
  expect(medianSessionMs(arrivals(10, 1000))).toBe(0);
});

test('halving finds a path near the best with fewer long runs than candidates', () => {
  const random = seededRandom(5);
  const noise = [0.1, 0.03, 0.01];
  let regret = 0;
  let longRuns = 0;
  for (let world = 0; world < 200; world += 1) {
    const truth = Array.from({ length: 40 }, () => 0.1 * random.normal());
    const { lastRung } = halve(
      truth.map((cost, index) => ({ cost, index })),
      3,
      (candidate, rung) => ({ candidate, seen: candidate.cost + (noise[rung] ?? 0) * random.normal() }),
      (entries) => [...entries].sort((a, b) => a.seen - b.seen),
      ({ candidate }) => candidate,
    );
    longRuns += lastRung.length;
    regret += (lastRung[0]?.candidate.cost ?? 1) - Math.min(...truth);
  }
  expect(longRuns / 200).toBe(3);
  expect(regret / 200).toBeLessThan(0.05);
});

test('what the ranking drops never comes back', () => {
  const { lastRung, standingCount } = halve(
    [1, 2, 3, 4],
    2,
    (candidate) => candidate,
    (entries) => entries.filter((entry) => entry !== 1),
    (entry) => entry,
  );
  expect(lastRung).toEqual([2, 3, 4]);
  expect(standingCount).toBe(3);
});
