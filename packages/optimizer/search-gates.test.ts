import { expect, test } from 'vitest';
import { MOST_CANARIES, makeWorld, runSearch } from './search-gates.fixture.ts';

// One run in each of the first two worlds of seeds 1 to 5. The gate of 2 % is for the mean of the 200 runs that
// `npm run bench -- optimizer search` makes with seeds 6 to 10; that of ten scatters by about one point.

test('against a reality with hidden biases six canaries come near the best path, and none goes live that misses its objective', () => {
  const worlds = [1, 2, 3, 4, 5].flatMap((seed) => [100 * seed, 100 * seed + 1]);
  const runs = worlds.map((number) => runSearch(makeWorld(number), 10 * number));
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  expect(runs.every(({ canaryCount }) => canaryCount <= MOST_CANARIES)).toBe(true);
  expect(mean(runs.map(({ regretAtStart }) => regretAtStart))).toBeGreaterThan(0.1);
  expect(mean(runs.map(({ regret }) => regret))).toBeLessThanOrEqual(0.03);
  expect(runs.reduce((sum, { violatingCount }) => sum + violatingCount, 0)).toBe(0);
}, 480_000);
