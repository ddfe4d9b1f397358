import { expect, test } from 'vitest';
import { SequenceTiming } from './sequence-timing.ts';

test('no token and one token have no gaps', () => {
  const timing = new SequenceTiming(100);
  expect(timing.summary()).toEqual({ ttftMs: 0, decodeMs: 0, tpotMs: 0, itlP95Ms: 0, itlMaxMs: 0 });
  timing.token(130);
  expect(timing.summary()).toEqual({ ttftMs: 30, decodeMs: 0, tpotMs: 0, itlP95Ms: 0, itlMaxMs: 0 });
});

test('mean, p95 and longest gap are exact while every gap is kept', () => {
  const timing = new SequenceTiming(0);
  let at = 10;
  timing.token(at);
  for (let gap = 1; gap <= 100; gap += 1) {
    at += gap;
    timing.token(at);
  }
  expect(timing.summary()).toEqual({ ttftMs: 10, decodeMs: 5050, tpotMs: 50.5, itlP95Ms: 95, itlMaxMs: 100 });
});

test('beyond the bound the p95 is of a uniform sample, the longest gap still exact', () => {
  const timing = new SequenceTiming(0);
  let at = 0;
  timing.token(at);
  for (let index = 0; index < 100_000; index += 1) {
    at += index === 77_777 ? 500 : index % 100;
    timing.token(at);
  }
  const { itlP95Ms, itlMaxMs } = timing.summary();
  expect(itlMaxMs).toBe(500);
  expect(Math.abs(itlP95Ms - 94)).toBeLessThan(3);
});
