import { expect, test } from 'vitest';
import { missRisk } from './itl-belief.ts';
import { testPath } from './test-world.ts';

const spread = 0.1;
const near = { ...testPath, tokenBudget: 256 };
const otherKernels = { ...testPath, linear: 'linear.reference' } as const;
const at = (ratio: number): number[] => [Math.log(ratio)];

test('before anything was measured, a path at its objective misses it as likely as not, and one far below hardly', () => {
  const risk = (ratio: number): number => missRisk(testPath, at(ratio), { spread, errors: [] });
  expect(risk(1)).toBeCloseTo(0.5, 6);
  expect(risk(Math.exp(-1.645 * spread))).toBeCloseTo(0.05, 3);
  expect(risk(0.5)).toBeLessThan(1e-6);
  expect(missRisk(testPath, [Math.log(0.8), Math.log(1.1)], { spread: 0.01, errors: [] })).toBeGreaterThan(
    0.2,
  );
});

test('a path whose real gaps are shorter than replayed speaks for itself most, then for its kernels, least for others', () => {
  const errors = [{ path: testPath, mean: -0.2, variance: 1e-6 }];
  const risk = (path: typeof testPath): number => missRisk(path, at(1), { spread, errors });
  expect(risk(testPath)).toBeLessThan(1e-6);
  // Half of the error is its own: the rest is -0.1, give or take 0.087.
  expect(risk(near)).toBeCloseTo(0.124, 2);
  expect(risk(otherKernels)).toBeGreaterThan(risk(near));
  expect(risk(otherKernels)).toBeLessThan(0.5);
  const twice = [...errors, { path: { ...testPath, tokenBudget: 64 }, mean: -0.2, variance: 1e-6 }];
  expect(missRisk(near, at(1), { spread, errors: twice })).toBeLessThan(risk(near));
});

test('a path without streamed gaps misses nothing, one that lets no token out everything', () => {
  expect(missRisk(testPath, [Number.NEGATIVE_INFINITY], { spread, errors: [] })).toBe(0);
  expect(missRisk(testPath, [Number.POSITIVE_INFINITY], { spread, errors: [] })).toBe(1);
});
