import { expect, test } from 'vitest';
import { delayOfShift, shifts } from './regime-gates.fixture.ts';

test('a shift of lengths, arrivals or cached share is confirmed within 15 windows in at least 95 % of 160 runs', () => {
  const seeds = [1, 2, 3, 4, 5].flatMap((seed) => [0, 1, 2, 3].map((run) => 100 * seed + run));
  const delays = shifts.flatMap((shift) => seeds.map((seed) => delayOfShift(shift, seed)));
  const inTime = delays.filter((delay) => delay !== null);
  expect(inTime.length / delays.length).toBeGreaterThanOrEqual(0.95);
}, 120_000);
