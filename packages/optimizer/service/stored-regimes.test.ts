import { advance, NO_REGIME, type RegimeState } from '@variator/optimizer/regime';
import { seededRandom } from '@variator/optimizer/seeded-random';
import { mixed, playPhases, workloads } from '@variator/optimizer/simulated-traffic.fixture';
import { expect, test } from 'vitest';
import { parseState } from './stored-regimes.ts';

test('a detector that is stored and restored between any two windows comes to the same verdicts', () => {
  for (let seed = 1; seed <= 2; seed += 1) {
    const random = seededRandom(900 + seed);
    const order = Array.from({ length: 6 }, (_, visit) => workloads[(3 * visit + seed) % 8] ?? mixed);
    const windows = playPhases(
      order.map((workload) => ({ workload, windowCount: 8 + random.below(16) })),
      seed,
    );
    let state: RegimeState = NO_REGIME;
    let restored: RegimeState = NO_REGIME;
    let confirmedCount = 0;
    for (const window of windows) {
      const step = advance(state, window);
      const again = advance(restored, window);
      expect(again).toEqual(step);
      confirmedCount += step.marks.filter(({ kind }) => kind === 'confirmed').length;
      state = step.state;
      restored = random.uniform() < 0.7 ? parseState(JSON.stringify(again.state)) : again.state;
    }
    expect(confirmedCount).toBeGreaterThan(2);
    expect(JSON.stringify(state).length).toBeLessThan(30_000);
  }
});

test('what is no state of this detector is refused', () => {
  expect(() => parseState('{')).toThrow();
  expect(() => parseState(JSON.stringify({ ...NO_REGIME, seenUntil: 'yesterday' }))).toThrow();
  expect(() => parseState(JSON.stringify({ ...NO_REGIME, cusums: [] }))).toThrow();
  expect(parseState(JSON.stringify(NO_REGIME))).toEqual(NO_REGIME);
});
