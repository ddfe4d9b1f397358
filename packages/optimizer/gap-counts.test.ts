import { expect, test } from 'vitest';
import { GapCounts } from './gap-counts.ts';
import { quantile } from './quantile.ts';
import { seededRandom } from './seeded-random.ts';

test('has the quantiles of the list in which each gap stands as often as it occurred', () => {
  const random = seededRandom(4);
  for (let round = 0; round < 200; round += 1) {
    const gaps = new GapCounts();
    const list: number[] = [];
    for (let index = 0; index < 1 + random.below(12); index += 1) {
      const value = random.below(6);
      const count = random.below(4);
      gaps.add(value, count);
      for (let time = 0; time < count; time += 1) list.push(value);
    }
    const shares = [0, 0.01, 0.5, random.uniform(), 0.99, 1];
    expect(gaps.total).toBe(list.length);
    expect(gaps.quantiles(shares)).toEqual(
      shares.map((share) => (list.length === 0 ? Number.NaN : expect.closeTo(quantile(list, share), 12))),
    );
  }
});

test('has none where there was no gap', () => {
  expect(new GapCounts().quantiles([0.5])).toEqual([Number.NaN]);
});
