import { expect, test } from 'vitest';
import { MOST_CANARIES, makeWorld, runSearch } from './search-gates.fixture.ts';

// One run in each world of seed 2; `npm run bench -- optimizer search` makes 200 with seeds 6 to 10.

test('against a reality with hidden biases six canaries come near the best path, and none goes live that misses its objective', () => {
  const worlds = Array.from({ length: 8 }, (_, place) => 200 + place);
  const runs = worlds.map((number) => runSearch(makeWorld(number), 10 * number));
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  expect(runs.every(({ canaryCount }) => canaryCount <= MOST_CANARIES)).toBe(true);
  expect(mean(runs.map(({ regretAtStart }) => regretAtStart))).toBeGreaterThan(0.1);
  expect(mean(runs.map(({ regret }) => regret))).toBeLessThanOrEqual(0.02);
  expect(runs.reduce((sum, { violatingCount }) => sum + violatingCount, 0)).toBe(0);
}, 120_000);
