import { expect, test } from 'vitest';
import { MOST_CANARIES, makeWorld, runSearch } from './search-gates.fixture.ts';

// A few of the 200 runs that `npm run bench -- optimizer search` makes with seeds 6 to 10.

test('against a reality with hidden biases six canaries come near the best path, and none goes live that misses its objective', () => {
  const runs = [100, 200, 300].flatMap((seed) => {
    const world = makeWorld(seed);
    return [1, 2, 3, 4, 5, 6, 7].map((draw) => runSearch(world, seed + draw));
  });
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  expect(runs.every(({ canaryCount }) => canaryCount <= MOST_CANARIES)).toBe(true);
  expect(mean(runs.map(({ regretAtStart }) => regretAtStart))).toBeGreaterThan(0.1);
  expect(mean(runs.map(({ regret }) => regret))).toBeLessThanOrEqual(0.02);
  expect(runs.reduce((sum, { violatingCount }) => sum + violatingCount, 0)).toBe(0);
}, 60_000);
