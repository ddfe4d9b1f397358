import { expect, test } from 'vitest';
import { quantile, upperQuantile } from './quantile.ts';
import { seededRandom } from './seeded-random.ts';

test('the upper end by a sample is the upper end by sorting all, whatever lies where', () => {
  const random = seededRandom(9);
  const shapes: ((index: number) => number)[] = [
    () => random.uniform(),
    () => Math.exp(3 * random.normal()),
    () => Math.floor(4 * random.uniform()),
    // What every sixteenth value shows is not what the others are.
    (index) => (index % 16 === 0 ? 100 + random.uniform() : random.uniform()),
    (index) => (index % 16 === 0 ? 0 : random.uniform()),
    (index) => index,
  ];
  for (const shape of shapes) {
    for (const length of [1, 2, 100, 1023, 1024, 5000, 20_011]) {
      const values = Float64Array.from({ length }, (_, index) => shape(index));
      for (const share of [0.5, 0.9, 0.99, 0.999, 1]) {
        expect(upperQuantile(values, share)).toBe(quantile(values, share));
      }
    }
  }
  expect(upperQuantile(new Float64Array(), 0.99)).toBeNaN();
});
