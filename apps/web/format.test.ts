/** The words that numbers become. */
import { describe, expect, test } from 'vitest';
import {
  formatAge,
  formatAgo,
  formatAxisTime,
  formatChange,
  formatChangeRange,
  formatCount,
  formatEnergy,
  formatError,
  formatFactor,
  formatId,
  formatMoment,
  formatMs,
  formatShare,
  formatTokensPerSecond,
  formatUsd,
} from './format.ts';

describe('a duration', () => {
  test.each([
    [0.4, '0.4 ms'],
    [9.96, '10 ms'],
    [184.4, '184 ms'],
    [999.6, '1.00 s'],
    [2412, '2.41 s'],
    [59_996, '59 s'],
    [200_000, '3 min 20 s'],
  ])('of %d ms is %s', (durationMs, words) => {
    expect(formatMs(durationMs)).toBe(words);
  });

  test.each([
    [0, '0 s'],
    [1999, '1 s'],
    [180_000, '3 min'],
    [1_205_000, '20 min'],
    [7_500_000, '2 h 5 min'],
    [3 * 86_400_000, '3 d'],
  ])('as an age of %d ms is %s', (durationMs, words) => {
    expect(formatAge(durationMs)).toBe(words);
  });

  test('in the past is told in whole minutes', () => {
    expect(formatAgo(1_000_000, 1_000_500)).toBe('just now');
    expect(formatAgo(1_000_000, 1_030_000)).toBe('30 s ago');
    expect(formatAgo(1_000_000, 1_200_000)).toBe('3 min ago');
  });
});

test('an error may be more than all', () => {
  expect([null, 0.0421, 0.9999, 1.434].map(formatError)).toEqual(['–', '4.2 %', '100 %', '143 %']);
});

test('a moment of a long range has its day, on an axis the day alone', () => {
  const at = new Date(2026, 10, 22, 14, 2, 11).getTime();
  const dayMs = 86_400_000;
  expect(formatMoment(at, dayMs)).toBe('14:02:11');
  expect(formatMoment(at, 7 * dayMs)).toBe('22 Nov, 14:02');
  expect([10_000, 3_600_000, dayMs].map((stepMs) => formatAxisTime(at, stepMs))).toEqual([
    '14:02:11',
    '14:02',
    '22 Nov',
  ]);
});

test('what was not measured is a dash', () => {
  for (const format of [formatMs, formatCount, formatUsd, formatShare, formatChange, formatTokensPerSecond]) {
    expect(format(null)).toBe('–');
  }
});

test('rates and counts are grouped', () => {
  expect(formatTokensPerSecond(1240.4)).toBe('1,240 tok/s');
  expect(formatTokensPerSecond(7.25)).toBe('7.3 tok/s');
  expect(formatCount(7)).toBe('7');
});

test('energy is told in joules, watt-hours and kilowatt-hours', () => {
  expect(formatEnergy(null)).toBe('–');
  expect(formatEnergy(840.4)).toBe('840 J');
  expect(formatEnergy(44_640)).toBe('12.4 Wh');
  expect(formatEnergy(3.6e6 * 3.214)).toBe('3.21 kWh');
});

test('small sums of money keep their digits', () => {
  expect(formatUsd(0.42)).toBe('$0.42');
  expect(formatUsd(0.00423)).toBe('$0.0042');
  expect(formatUsd(1234.5)).toBe('$1,234.50');
});

test('a share is full only when it is', () => {
  expect(formatShare(1)).toBe('100 %');
  expect(formatShare(0.9999)).toBe('99.9 %');
  expect(formatShare(0.992)).toBe('99.2 %');
  expect(formatShare(0)).toBe('0 %');
});

test('a change carries its sign', () => {
  expect(formatChange(0.12)).toBe('+12 %');
  expect(formatChange(-0.034)).toBe('−3.4 %');
  expect(formatChange(0.0001)).toBe('0 %');
  expect(formatChangeRange(-0.18, -0.09)).toBe('−18 to −9 %');
  expect(formatFactor(1.4)).toBe('1.4x');
  expect(formatFactor(1.25)).toBe('1.25x');
});

test('an id is shortened to eight digits', () => {
  expect(formatId('0123456789ab')).toBe('01234567');
  expect(formatId('')).toBe('–');
});
