import { expect, test } from 'vitest';
import { seededRandom } from './seeded-random.ts';
import { bandAfter, freshBand, halfWidthOf, type StepTimeBand } from './step-time-band.ts';

function after(band: StepTimeBand, count: number, spread: number, seed: number): StepTimeBand {
  const random = seededRandom(seed);
  let now = band;
  for (let round = 0; round < count / 10; round += 1) {
    now = bandAfter(
      now,
      Array.from({ length: 10 }, () => spread * random.normal()),
    );
  }
  return now;
}

test('there is no band before twenty steps were seen', () => {
  expect(halfWidthOf(bandAfter(freshBand, [0.1, -0.1]))).toBeNull();
});

test('of steady errors it is their 90 % quantile', () => {
  expect(halfWidthOf(after(freshBand, 2000, 0.02, 1))).toBeCloseTo(1.645 * 0.02, 2);
});

test('it widens while steps leave it, and narrows again, whatever came before', () => {
  const steady = after(freshBand, 2000, 0.02, 2);
  const worse = after(steady, 100, 0.1, 3);
  expect(worse.missShare).toBeLessThan(0.5 * steady.missShare);
  expect(halfWidthOf(worse)).toBeGreaterThan(2 * (halfWidthOf(steady) ?? 0));
  expect(halfWidthOf(after(worse, 3000, 0.02, 4))).toBeLessThan(0.05);
});

test('it holds a bounded number of errors, and what is no number is none', () => {
  const band = after(freshBand, 3000, 0.02, 5);
  expect(band.scores).toHaveLength(500);
  expect(bandAfter(band, [Number.NaN, Number.POSITIVE_INFINITY])).toEqual(band);
});
