/** Searching is quick after a change and cheap without one. */
import { expect, test } from 'vitest';
import { type Circumstances, isDue, mayChange, paceAfter, type SearchPace } from './search-pace.ts';

const calm: Circumstances = { identity: 'path regime', amounts: { arrivals: 600, prompt: 200 } };
const TOOK_MS = 1500;
const EVERY_MS = 10_000;

test('before the first search there is nothing to wait for', () => {
  expect(isDue(undefined, calm, 0)).toBe(true);
});

test('a steady regime is searched for less than a hundredth of the time, and ever less', () => {
  let pace: SearchPace | undefined;
  const searchedAt: number[] = [];
  for (let now = 0; now < 3_600_000; now += EVERY_MS) {
    // Windows of the same traffic differ by chance.
    const amounts = { arrivals: 600 + 50 * Math.sin(now), prompt: 200 + 20 * Math.cos(now) };
    const window = { ...calm, amounts };
    if (!isDue(pace, window, now)) continue;
    searchedAt.push(now);
    pace = paceAfter(pace, window, TOOK_MS, now);
  }
  expect((searchedAt.length * TOOK_MS) / 3_600_000).toBeLessThan(0.01);
  expect(searchedAt.length).toBeGreaterThan(5);
  const rests = searchedAt.slice(1).map((at, index) => at - (searchedAt[index] ?? 0));
  expect(rests[0]).toBeLessThan(320_000);
  expect(rests.at(-1)).toBe(600_000);
});

test('a change is searched as soon as the last search has been paid for', () => {
  const pace = paceAfter(undefined, calm, TOOK_MS, 0);
  const changes: Circumstances[] = [
    { ...calm, identity: 'path other regime' },
    { ...calm, amounts: { ...calm.amounts, prompt: 400 } },
    { ...calm, amounts: { ...calm.amounts, arrivals: 300 } },
    { ...calm, amounts: { ...calm.amounts, 'steps of a new fit': 40 } },
  ];
  for (const change of changes) {
    expect(isDue(pace, change, 16_000)).toBe(false);
    expect(mayChange(pace, 16_000)).toBe(false);
    expect(isDue(pace, change, 18_000)).toBe(true);
    expect(paceAfter(pace, change, TOOK_MS, 18_000).restMs).toBe(pace.restMs);
  }
  expect(isDue(pace, calm, 18_000)).toBe(false);
});
