import { expect, test } from 'vitest';
import { shareInterval } from './share-interval.ts';

const alone = (hits: number, misses: number) => [
  ...Array.from({ length: hits }, () => ({ hits: 1, count: 1 })),
  ...Array.from({ length: misses }, () => ({ hits: 0, count: 1 })),
];

test('independent positions get the interval of Wilson', () => {
  const { share, low, high, count } = shareInterval(alone(8, 2));
  expect(count).toBe(10);
  expect(share).toBeCloseTo(0.8, 12);
  expect(low).toBeCloseTo(0.4902, 4);
  expect(high).toBeCloseTo(0.9433, 4);
});

test('positions that all agree leave room for one that would not', () => {
  const { share, low, high } = shareInterval([{ hits: 300, count: 300 }]);
  expect(share).toBe(1);
  expect(low).toBeCloseTo(300 / (300 + 3.8415), 4);
  expect(high).toBe(1);
});

test('misses that stand together in few prompts widen it as if there were as few positions', () => {
  const spread = shareInterval(alone(80, 20));
  const together = shareInterval([
    ...Array.from({ length: 8 }, () => ({ hits: 10, count: 10 })),
    ...Array.from({ length: 2 }, () => ({ hits: 0, count: 10 })),
  ]);
  const ten = shareInterval(alone(8, 2));
  expect(together.share).toBeCloseTo(spread.share, 12);
  expect(together.high - together.low).toBeGreaterThan(2.5 * (spread.high - spread.low));
  expect(together.low).toBeCloseTo(ten.low, 1);
});

test('empty groups say nothing', () => {
  expect(shareInterval([{ hits: 0, count: 0 }, ...alone(8, 2)])).toEqual(shareInterval(alone(8, 2)));
  expect(shareInterval([]).share).toBeNaN();
});
