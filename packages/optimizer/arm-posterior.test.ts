import { expect, test } from 'vitest';
import { beliefOf, choose, gainOf, observed } from './arm-posterior.ts';
import { seededRandom } from './seeded-random.ts';

const sure = () => 0;
const arm = (id: string, logRatio: number, variance = 0) => ({ id, logRatio, variance });

test('before any canary a path is what its replay said, off by the spread of replays', () => {
  const belief = beliefOf('now', [arm('a', -0.1)], [], 0.06, 8);
  expect(gainOf(belief, 'a').mean).toBeCloseTo(-0.1, 12);
  expect(gainOf(belief, 'a').spread).toBeCloseTo(0.06, 12);
  expect(gainOf(belief, 'now')).toEqual({ mean: 0, spread: 0 });
});

test('the best of near rivals is pulled to their mean, the best of distant ones hardly', () => {
  const noisy = 0.06 ** 2;
  const near = beliefOf('now', [arm('a', -0.1, noisy)], [-0.1, -0.08, -0.09, -0.07], 0.06, 8);
  expect(gainOf(near, 'a').mean).toBeGreaterThan(-0.094);
  expect(gainOf(near, 'a').mean).toBeLessThan(-0.085);
  const distant = beliefOf('now', [arm('a', -0.5, noisy)], [-0.5, 0.1, 0.4, -0.1], 0.06, 8);
  expect(gainOf(distant, 'a').mean).toBeLessThan(-0.49);
});

test('a canary moves its own path by its precision, and what is known of the incumbent with it', () => {
  const prior = beliefOf('now', [arm('a', -0.1), arm('b', -0.1)], [], 0.06, 8);
  const after = observed(prior, { from: 'now', to: 'a', mean: 0, variance: 0.06 ** 2 });
  // Equal precisions: halfway.
  expect(gainOf(after, 'a').mean).toBeCloseTo(-0.05, 9);
  expect(gainOf(after, 'a').spread).toBeCloseTo(0.06 / Math.SQRT2, 9);
  // A replay that was wrong about `a` was partly wrong about the incumbent, which `b` is compared with.
  expect(gainOf(after, 'b').mean).toBeCloseTo(-0.075, 9);
  expect(observed(prior, { from: 'now', to: 'unknown', mean: 1, variance: 0.01 })).toEqual(prior);
});

test('two canaries in a row say of a third path what no canary compared', () => {
  const prior = beliefOf('b', [arm('c', 0)], [], 0.06, 8, [{ id: 'a', logRatio: 0, variance: 0.09 }]);
  const exact = { variance: 1e-8 };
  const once = observed(prior, { from: 'a', to: 'b', mean: -0.05, ...exact });
  const twice = observed(once, { from: 'a', to: 'c', mean: -0.02, ...exact });
  expect(gainOf(twice, 'c').mean).toBeCloseTo(0.03, 4);
  expect(gainOf(twice, 'c').spread).toBeLessThan(0.001);
});

test('a clear best is chosen, a clear loser never, and near ones take turns', () => {
  const all = () => true;
  const clear = beliefOf('now', [arm('a', -0.3), arm('b', 0.3)], [], 0.06, 8);
  const drawn = (belief: typeof clear) =>
    Array.from({ length: 40 }, (_, seed) => choose(belief, all, sure, seededRandom(seed)).id);
  expect(new Set(drawn(clear))).toEqual(new Set(['a']));
  expect(choose(clear, all, sure, seededRandom(1)).probabilityBest).toBeGreaterThan(0.98);
  const near = beliefOf('now', [arm('a', -0.1), arm('b', -0.09)], [], 0.06, 8);
  expect(new Set(drawn(near))).toEqual(new Set(['a', 'b']));
  expect(choose(near, (id) => id !== 'a', sure, seededRandom(1)).id).toBe('b');
});

test('it stays where the incumbent is the best or finding out is worth little', () => {
  const worse = beliefOf('now', [arm('a', 0.2)], [], 0.06, 8);
  expect(choose(worse, () => true, sure, seededRandom(1)).id).toBeNull();
  const known = observed(beliefOf('now', [arm('a', 0)], [], 0.06, 8), {
    from: 'now',
    to: 'a',
    mean: 0.001,
    variance: 1e-6,
  });
  const choice = choose(known, () => true, sure, seededRandom(1));
  expect(choice.id).toBeNull();
  expect(choice.valueOfKnowing).toBeLessThan(0.005);
});

test('what may miss the objective is tried for what it may save, and settled for by nobody', () => {
  const all = () => true;
  const belief = beliefOf('now', [arm('risky', -0.3), arm('safe', -0.05)], [], 0.02, 8);
  const drawn = (risk: number) =>
    Array.from({ length: 40 }, (_, seed) =>
      choose(belief, all, (id) => (id === 'risky' ? risk : 0), seededRandom(seed)),
    );
  expect(new Set(drawn(0).map(({ id }) => id))).toEqual(new Set(['risky']));
  const doubtful = drawn(0.4);
  expect(new Set(doubtful.map(({ id }) => id))).toEqual(new Set(['risky', 'safe']));
  // It saves a quarter more than the safe one, in six of ten cases.
  expect(doubtful[0]?.valueOfKnowing).toBeGreaterThan(0.12);
  expect(doubtful[0]?.valueOfKnowing).toBeLessThan(0.18);
  expect(new Set(drawn(0.9999).map(({ id }) => id))).toEqual(new Set(['safe']));
});
