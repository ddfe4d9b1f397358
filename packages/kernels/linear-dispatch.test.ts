import { expect, test } from 'vitest';
import { linearKernels, type TuningParameter, tuningParameters } from './kernel-parameters.ts';
import {
  candidateTunings,
  dispatchTable,
  type LinearShape,
  type LinearTuning,
  linearKernelFor,
  priorTuning,
  priorTunings,
  quickestTuning,
  rowBuckets,
  tuningsOfTiles,
} from './linear-dispatch.ts';
import { readTiles } from './tiles.ts';

const shapes: readonly LinearShape[] = [
  [576, 576],
  [192, 576],
  [2048, 5632],
  [32, 16_384],
];
const inRange = (tuning: LinearTuning): boolean =>
  tuningParameters.every((parameter) => {
    const ranges = linearKernels.flatMap(({ parameters }) => parameters[parameter] ?? []);
    return ranges.every(({ least, most }) => tuning[parameter] >= least && tuning[parameter] <= most);
  });

test('the buckets double, and each belongs to one kernel as a whole', () => {
  expect(rowBuckets.map((rows) => linearKernelFor(rows).id)).toEqual([
    'gemv',
    'gemv',
    ...Array(4).fill('skinny'),
    ...Array(3).fill('full'),
  ]);
  for (const { mostRows } of linearKernels) {
    if (Number.isFinite(mostRows)) expect(rowBuckets).toContain(mostRows);
  }
});

test('priors and candidates are within the catalogue’s ranges, and every prior is among the candidates', () => {
  for (const rowCount of rowBuckets) {
    const candidates = candidateTunings(shapes, rowCount);
    expect(candidates.every(inRange)).toBe(true);
    expect(new Set(candidates.map((one) => JSON.stringify(one))).size).toBe(candidates.length);
    for (const shape of shapes) expect(candidates).toContainEqual(priorTuning(shape, rowCount));
  }
});

test('a candidate replaces the prior where it is clearly quicker, and nothing does where the prior was not measured', () => {
  const candidates = candidateTunings([[576, 576]], 16);
  const prior = priorTuning([576, 576], 16);
  const us = candidates.map(() => 10);
  expect(quickestTuning(prior, candidates, us)).toEqual(prior);
  const nearly = us.with(2, 9.8);
  expect(quickestTuning(prior, candidates, nearly)).toEqual(prior);
  const clearly = us.with(2, 9.6).with(3, 9.5);
  expect(quickestTuning(prior, candidates, clearly)).toEqual(candidates[3]);
  const priorAt = candidates.findIndex((one) => JSON.stringify(one) === JSON.stringify(prior));
  expect(quickestTuning(prior, candidates, clearly.with(priorAt, Number.NaN))).toEqual(prior);
  expect(quickestTuning(prior, candidates, us.with(1, Number.NaN))).toEqual(prior);
});

test('tiles are read into settings of kernels, and what is wrong is said', () => {
  expect(readTiles('measured')).toEqual([]);
  expect(readTiles('prior')).toEqual([]);
  expect(readTiles('full.slabRows=48+gemv.prefetchGroups=8')).toEqual([
    { kernel: 'full', parameter: 'slabRows', value: 48 },
    { kernel: 'gemv', parameter: 'prefetchGroups', value: 8 },
  ]);
  for (const bad of [
    '',
    'fast',
    'full.slabRows',
    'full.slabRows=x',
    'gemv.slabRows=4',
    'huge.slabRows=4',
    'full.slabRows=48+',
  ]) {
    expect(readTiles(bad)).toContain('tiles must be measured, prior, or settings such as');
  }
  expect(readTiles('full.slabRows=97')).toBe(
    'tiles: full.slabRows must be a whole number from 1 to 96, not 97.',
  );
  expect(readTiles('skinny.rowsAtOnce=0')).toContain('from 1 to 6');
});

test('a path’s settings stand over what was measured, for the kernel they name alone', () => {
  const measured = priorTunings(shapes).map((buckets) => buckets.map((one) => ({ ...one, rowsAtOnce: 5 })));
  const values = (tiles: string, parameter: TuningParameter) =>
    tuningsOfTiles(tiles, shapes, measured)[0]?.map((one) => one[parameter]);
  expect(values('measured', 'rowsAtOnce')).toEqual(Array(9).fill(5));
  expect(values('prior', 'rowsAtOnce')).toEqual(Array(9).fill(6));
  expect(values('skinny.rowsAtOnce=4', 'rowsAtOnce')).toEqual([5, 5, 4, 4, 4, 4, 5, 5, 5]);
  expect(tuningsOfTiles('measured', shapes, null)).toEqual(priorTunings(shapes));
  expect(() => tuningsOfTiles('nonsense', shapes, null)).toThrow(/^tiles must be/);
});

test('the table lies by shape, bucket and parameter', () => {
  const table = dispatchTable(priorTunings(shapes));
  expect(table.length).toBe(shapes.length * rowBuckets.length * tuningParameters.length);
  const at = (2 * rowBuckets.length + 8) * tuningParameters.length;
  const prior = priorTuning(shapes[2] ?? [0, 0], 256);
  expect([...table.subarray(at, at + 4)]).toEqual(tuningParameters.map((parameter) => prior[parameter]));
});
