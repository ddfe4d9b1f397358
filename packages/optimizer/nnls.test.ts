import { expect, test } from 'vitest';
import { solveNonNegative } from './nnls.ts';
import { seededRandom } from './seeded-random.ts';

const loss = (gram: number[][], moment: number[], x: readonly number[]): number =>
  gram.reduce(
    (sum, row, i) => sum + (x[i] ?? 0) * row.reduce((inner, value, j) => inner + value * (x[j] ?? 0), 0),
    0,
  ) -
  2 * moment.reduce((sum, value, i) => sum + value * (x[i] ?? 0), 0);

function randomProblem(seed: number, size: number): { gram: number[][]; moment: number[] } {
  const random = seededRandom(seed);
  const rows = Array.from({ length: 3 * size }, () => Array.from({ length: size }, () => random.normal()));
  const targets = rows.map(() => random.normal() * 3);
  const indexes = Array.from({ length: size }, (_, i) => i);
  return {
    gram: indexes.map((i) =>
      indexes.map((j) => rows.reduce((sum, row) => sum + (row[i] ?? 0) * (row[j] ?? 0), 0)),
    ),
    moment: indexes.map((i) => rows.reduce((sum, row, r) => sum + (row[i] ?? 0) * (targets[r] ?? 0), 0)),
  };
}

test('an unconstrained optimum that is positive is found exactly', () => {
  expect(
    solveNonNegative(
      [
        [2, 0],
        [0, 4],
      ],
      [2, 8],
    ),
  ).toEqual([1, 2]);
});

test('an unknown that would be negative is zero and the others are solved again', () => {
  const solution = solveNonNegative(
    [
      [2, 1],
      [1, 2],
    ],
    [-1, 2],
  );
  expect(solution[0]).toBe(0);
  expect(solution[1]).toBeCloseTo(1, 12);
});

test('no slope points downhill from the solution of 200 random problems, and no random point is better', () => {
  for (let seed = 0; seed < 200; seed += 1) {
    const { gram, moment } = randomProblem(seed, 7);
    const solution = solveNonNegative(gram, moment);
    gram.forEach((row, i) => {
      const value = solution[i] ?? 0;
      const slope = (moment[i] ?? 0) - row.reduce((sum, g, j) => sum + g * (solution[j] ?? 0), 0);
      expect(value).toBeGreaterThanOrEqual(0);
      if (value > 0) expect(Math.abs(slope)).toBeLessThan(1e-8);
      else expect(slope).toBeLessThan(1e-8);
    });
    const random = seededRandom(seed + 1);
    const other = solution.map((value) => Math.max(0, value + 0.1 * random.normal()));
    expect(loss(gram, moment, solution)).toBeLessThanOrEqual(loss(gram, moment, other) + 1e-9);
  }
});

test('a column that repeats another does not break it', () => {
  const solution = solveNonNegative(
    [
      [1, 1],
      [1, 1],
    ],
    [2, 2],
  );
  expect((solution[0] ?? 0) + (solution[1] ?? 0)).toBeCloseTo(2, 9);
});
