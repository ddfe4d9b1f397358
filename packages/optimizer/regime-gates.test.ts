import { expect, test } from 'vitest';
import { quietDay, recallWithout } from './regime-gates.fixture.ts';
import { mixed, workloads } from './simulated-traffic.fixture.ts';

// A few of the runs that `npm run bench -- optimizer regimes` makes with seeds 6 to 10.

test('a simulated day, diurnal swing included: at most one false alarm, suspicions take less than a twentieth of it', () => {
  const day = quietDay(mixed, 2);
  expect(day.falseAlarmCount).toBeLessThanOrEqual(1);
  expect(day.suspectedShare).toBeLessThan(0.05);
}, 60_000);

test('regimes that come again are recalled in at least 95 % of visits, an unseen one is told apart in 90 %', () => {
  const counts = workloads.map((_, leftOut) => recallWithout(leftOut, 1));
  const sum = (name: keyof (typeof counts)[number]): number =>
    counts.reduce((total, count) => total + count[name], 0);
  expect(sum('recalled') / sum('recurrences')).toBeGreaterThanOrEqual(0.95);
  expect(sum('rejected') / sum('unseen')).toBeGreaterThanOrEqual(0.9);
}, 60_000);
