import { expect, test } from 'vitest';
import { type DriftAlarm, driftAfter, type JudgedStep, NO_DRIFT } from './residual-drift.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';

/** Of these shapes the fit is off by as much; 2 % noise, one step in a hundred takes up to twice as long. */
const offBy: Readonly<Record<string, number>> = { decode: -0.06, chunk: 0.09, long: 0.02, mixed: -0.1 };

function stepsOf(
  shapes: readonly string[],
  from: number,
  count: number,
  slower: number,
  random: SeededRandom,
): JudgedStep[] {
  return Array.from({ length: count }, (_, index) => {
    const shape = shapes[random.below(shapes.length)] ?? 'decode';
    const outlier = random.uniform() < 0.01 ? Math.log(1.3 + 0.7 * random.uniform()) : 0;
    const drifting = 0.007 * Math.sin((from + index) / 900);
    const logRatio = (offBy[shape] ?? 0) + drifting + 0.02 * random.normal() + outlier + Math.log(slower);
    return { at: from + index, shape, logRatio };
  });
}

/** In rounds, as the service reads them; the first alarm and the step that raised it. */
function play(steps: readonly JudgedStep[]): { alarm: DriftAlarm; raisedAt: number } | null {
  let drift = NO_DRIFT;
  for (let from = 0; from < steps.length; from += 150) {
    const step = driftAfter(drift, steps.slice(from, from + 150));
    drift = step.drift;
    if (step.alarm !== null) return { alarm: step.alarm, raisedAt: from + 150 };
  }
  return null;
}

const seeds = [1, 2, 3, 4, 5];

test('an hour of steps of a machine that stays as it is raises none, however the workload changes', () => {
  for (const seed of seeds) {
    const random = seededRandom(seed);
    const workloads = [['decode'], ['decode', 'chunk'], ['long', 'mixed'], ['chunk'], ['decode', 'mixed']];
    const steps = workloads.flatMap((shapes, phase) => stepsOf(shapes, 6000 * phase, 6000, 1, random));
    expect(play(steps)).toBeNull();
  }
});

test.each([1.12, 1 / 1.12])(
  'steps that take %f times as long are found within 600 steps, and from when on',
  (slower) => {
    for (const seed of seeds) {
      const random = seededRandom(seed);
      const shapes = ['decode', 'chunk'];
      const steps = [...stepsOf(shapes, 0, 6000, 1, random), ...stepsOf(shapes, 6000, 900, slower, random)];
      const found = play(steps);
      expect(found?.raisedAt).toBeGreaterThan(6000);
      expect(found?.raisedAt).toBeLessThanOrEqual(6600);
      expect(Math.abs((found?.alarm.since ?? 0) - 6000)).toBeLessThanOrEqual(200);
      expect(Math.sign(found?.alarm.logRatio ?? 0)).toBe(Math.sign(Math.log(slower)));
    }
  },
);

test('two hundredths more are not worth a new fit', () => {
  for (const seed of seeds) {
    const random = seededRandom(seed);
    const steps = [
      ...stepsOf(['decode'], 0, 6000, 1, random),
      ...stepsOf(['decode'], 6000, 6000, 1.02, random),
    ];
    expect(play(steps)).toBeNull();
  }
});

test('what is no number is passed over', () => {
  const odd = [Number.NaN, Number.POSITIVE_INFINITY].map((logRatio) => ({
    at: 1,
    shape: 'decode',
    logRatio,
  }));
  expect(driftAfter(NO_DRIFT, odd)).toEqual({ drift: NO_DRIFT, alarm: null });
});
