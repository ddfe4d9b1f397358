import { expect, test } from 'vitest';
import { delayOfShift, shifts } from './regime-gates.fixture.ts';
import { mixed } from './simulated-traffic.fixture.ts';

test.each(shifts)(
  '%s is confirmed within 15 windows in at least 19 of 20 runs',
  (shift) => {
    const seeds = [1, 2, 3, 4, 5].flatMap((seed) => [0, 1, 2, 3].map((run) => 100 * seed + run));
    const inTime = seeds.filter((seed) => delayOfShift(shift, mixed, seed) !== null);
    expect(inTime.length).toBeGreaterThanOrEqual(19);
  },
  60_000,
);
