import { expect, test } from 'vitest';
import { HOUR_MS, sourceOf } from './source-of.ts';

const t0 = 480_000 * HOUR_MS;
const at = (hours: number): number => t0 + hours * HOUR_MS;

test.each([
  ['a short span is read from the rows, exact at its ends', 0.25, 48.25, 100, 1, 'rows', 0.25, 48.25],
  ['a longer one from the hours it touches', 0.25, 72.5, 100, 1, 'hours', 0, 73],
  ['whole hours stay as they are', 1, 73, 100, 24, 'hours', 1, 73],
  [
    'it does not reach beyond now, or rates would be over time that has not passed',
    0,
    72.5,
    72.5,
    3,
    'hours',
    0,
    72.5,
  ],
  ['nor is a later end than now cut off', 0, 72.75, 72.5, 3, 'hours', 0, 72.75],
  ['buckets that are no whole hours need the rows', 0, 72, 100, 0.5, 'rows', 0, 72],
  ['and 90 minutes are none', 0, 72, 100, 1.5, 'rows', 0, 72],
] as const)('%s', (_, from, to, now, bucketHours, source, sourceFrom, sourceTo) => {
  expect(sourceOf({ fromMs: at(from), toMs: at(to) }, at(now), bucketHours * HOUR_MS)).toEqual({
    source,
    fromMs: at(sourceFrom),
    toMs: at(sourceTo),
  });
});
