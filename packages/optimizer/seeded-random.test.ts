import { expect, test } from 'vitest';
import { seededRandom } from './seeded-random.ts';

test('a seed repeats its draws, another seed does not, and the moments are right', () => {
  const draw = (seed: number): number[] => {
    const random = seededRandom(seed);
    return Array.from({ length: 4000 }, () => random.normal());
  };
  expect(draw(1)).toEqual(draw(1));
  expect(draw(1)).not.toEqual(draw(2));
  const values = draw(3);
  const mean = values.reduce((sum, value) => sum + value, 0) / values.length;
  const variance = values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / values.length;
  expect(Math.abs(mean)).toBeLessThan(0.05);
  expect(variance).toBeGreaterThan(0.9);
  expect(variance).toBeLessThan(1.1);
});
