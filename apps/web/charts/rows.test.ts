/** Gaps stay gaps, the filling bucket is apart, and ticks are round and few. */
import { describe, expect, test } from 'vitest';
import { fineLogTicks, logTicks, rateTicks, signedTicks, spanTicks, timeStepMs, timeTicks } from './axis.ts';
import { latestRow, spanOf, summariseRows, toRows } from './rows.ts';

const range = { fromMs: 0, toMs: 50, bucketMs: 10, now: 45 };
const points = [
  { at: 0, itl: 4 },
  { at: 20, itl: 6 },
  { at: 30, itl: 8 },
  { at: 40, itl: 2 },
];

describe('toRows', () => {
  const rows = toRows(points, ['itl'], range);

  test('makes a row for every bucket and a gap where nothing was measured', () => {
    expect(rows.map((row) => row.at)).toEqual([0, 10, 20, 30, 40]);
    expect(rows.map((row) => row.values.itl)).toEqual([4, null, 6, 8, 2]);
  });

  test('keeps the filling bucket out of the full line and joins it by the tail', () => {
    expect(rows.map((row) => row.full.itl)).toEqual([4, null, 6, 8, null]);
    expect(rows.map((row) => row.tail.itl)).toEqual([null, null, null, 8, 2]);
  });

  test('knows a value that stands alone', () => {
    expect(rows.map((row) => row.alone)).toEqual([['itl'], [], [], [], []]);
  });

  test('has no tail where every bucket is full', () => {
    const past = toRows(points, ['itl'], { ...range, now: 1000 });
    expect(past.every((row) => row.tail.itl === null)).toBe(true);
    expect(past.at(-1)?.full.itl).toBe(2);
  });

  test('never makes more than a thousand rows', () => {
    expect(toRows([], ['itl'], { fromMs: 0, toMs: 1e9, bucketMs: 10, now: 0 })).toHaveLength(1000);
  });
});

test('the latest row is a full one where there is one', () => {
  expect(latestRow(toRows(points, ['itl'], range))?.at).toBe(30);
  expect(latestRow(toRows([{ at: 40, itl: 2 }], ['itl'], range))?.at).toBe(40);
  expect(latestRow(toRows([{ at: 40, itl: null }], ['itl'], range))).toBeUndefined();
});

test('the summary is one sentence with last, least, most and gaps', () => {
  const rows = toRows(points, ['itl'], range);
  expect(spanOf(rows)).toEqual({ least: 2, most: 8 });
  expect(summariseRows('ITL', rows, [{ key: 'itl', label: 'p95' }], (value) => `${value} ms`)).toBe(
    'ITL: p95 is 2 ms, between 2 ms and 8 ms; 1 of 5 intervals without data.',
  );
});

test('ticks of a rate start at zero, are round and at most five', () => {
  expect(rateTicks(184)).toEqual([0, 50, 100, 150, 200]);
  expect(rateTicks(0.3)).toEqual([0, 0.1, 0.2, 0.3]);
  expect(rateTicks(0)).toEqual([0, 1]);
  for (let most = 0.001; most < 1e6; most *= 1.37) {
    const ticks = rateTicks(most);
    expect(ticks.length).toBeLessThanOrEqual(5);
    expect(ticks.at(-1)).toBeGreaterThanOrEqual(most * (1 - 1e-9));
  }
});

test('ticks of a span are round, few, and around it', () => {
  expect(spanTicks(81, 104)).toEqual([80, 90, 100, 110]);
  expect(spanTicks(0.3, 0.42)).toEqual([0.3, 0.35, 0.4, 0.45]);
  expect(spanTicks(50, 50)).toEqual([48, 49, 50, 51, 52]);
  expect(spanTicks(0, 0)).toEqual([0, 0.1]);
  for (const [least, most] of [
    [1, 1000],
    [17.3, 17.4],
    [3, 3.9],
  ] as const) {
    const ticks = spanTicks(least, most);
    expect(ticks.length).toBeLessThanOrEqual(5);
    expect(ticks[0]).toBeLessThanOrEqual(least);
    expect(ticks.at(-1)).toBeGreaterThanOrEqual(most);
  }
});

test('fine ticks of a logarithmic axis lie within the values, fewer a decade where there are many', () => {
  expect(fineLogTicks(4, 60)).toEqual([5, 10, 20, 50]);
  expect(fineLogTicks(0.9, 80)).toEqual([1, 3, 10, 30]);
  expect(fineLogTicks(0.2, 2000)).toEqual([1, 10, 100, 1000]);
  expect(fineLogTicks(0.00002, 3e6).length).toBeLessThanOrEqual(5);
});

test('ticks of a logarithmic axis are powers of ten around the values', () => {
  expect(logTicks(3, 420)).toEqual([1, 10, 100, 1000]);
  expect(logTicks(0.01, 1e6).length).toBeLessThanOrEqual(5);
});

test('ticks of time are round and at most five', () => {
  const fromMs = Date.UTC(2026, 0, 1, 10, 2, 30);
  for (const rangeMs of [
    300_000,
    900_000,
    3_600_000,
    21_600_000,
    86_400_000,
    7 * 86_400_000,
    30 * 86_400_000,
    90 * 86_400_000,
  ]) {
    const ticks = timeTicks(fromMs, fromMs + rangeMs);
    expect(ticks.length).toBeGreaterThanOrEqual(2);
    expect(ticks.length).toBeLessThanOrEqual(5);
    expect(ticks.every((at) => at % 60_000 === 0)).toBe(true);
    expect((ticks[0] ?? 0) - fromMs, 'none is left out').toBeLessThanOrEqual(
      timeStepMs(fromMs, fromMs + rangeMs),
    );
  }
});

test('ticks around zero hold zero and cover both sides', () => {
  expect(signedTicks(-0.18, 0.05)).toEqual([-0.2, -0.1, 0, 0.1]);
  for (let least = -0.9; least < 0; least += 0.07) {
    const ticks = signedTicks(least, 0.31);
    expect(ticks).toContain(0);
    expect(ticks.length).toBeLessThanOrEqual(6);
    expect(ticks[0]).toBeLessThanOrEqual(least + 1e-9);
    expect(ticks.at(-1)).toBeGreaterThanOrEqual(0.31);
  }
});
