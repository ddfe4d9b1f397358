import { expect, test } from 'vitest';
import { addGaps, evidenceOfKeeping, type LateGaps, lateGapsOf } from './late-gaps.ts';
import { seededRandom } from './seeded-random.ts';

test('gaps of one step count as one, and late ones by their share', () => {
  const alone = (itlMeanMs: number) => ({ itlMeanMs, itlTokenCount: 1 });
  expect(lateGapsOf([alone(10), alone(60), alone(10), alone(10)], 50)).toEqual({ count: 4, lateCount: 1 });
  const together = [
    { itlMeanMs: 60, itlTokenCount: 8 },
    { itlMeanMs: 10, itlTokenCount: 8 },
  ];
  expect(lateGapsOf(together, 50)).toEqual({ count: 2, lateCount: 1 });
  expect(lateGapsOf([{ itlMeanMs: 0, itlTokenCount: 0 }], 50)).toEqual({ count: 0, lateCount: 0 });
});

/** Looks after every block of 100 gaps, as a canary does; the block at which keeping was shown, or null. */
function shownAfter(seed: number, lateShare: number, blockCount: number, alpha: number): number | null {
  const random = seededRandom(seed);
  let all: LateGaps = { count: 0, lateCount: 0 };
  for (let block = 1; block <= blockCount; block += 1) {
    const late = Array.from({ length: 100 }, () => random.uniform()).filter((value) => value < lateShare);
    all = addGaps([all, { count: 100, lateCount: late.length }]);
    if (evidenceOfKeeping(all) > -Math.log(alpha)) return block;
  }
  return null;
}

test('a path with 1.1 % of its gaps late is taken for one that keeps the objective in at most 5 % of canaries, however long they go', () => {
  const shown = Array.from({ length: 400 }, (_, seed) => shownAfter(seed, 0.011, 60, 0.05));
  expect(shown.filter((block) => block !== null).length).toBeLessThanOrEqual(20);
});

test('one with 0.3 % is in nine of ten of 24 blocks, and one with none after five', () => {
  const shown = Array.from({ length: 200 }, (_, seed) => shownAfter(seed, 0.003, 24, 0.05));
  expect(shown.filter((block) => block !== null).length).toBeGreaterThanOrEqual(180);
  expect(shownAfter(1, 0, 24, 0.05)).toBe(5);
});
