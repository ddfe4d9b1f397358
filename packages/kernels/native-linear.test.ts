/** Every linear variant by itself, on odd shapes: held to the reference, and where bits are promised, to the bit. */
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { afterAll, expect, test } from 'vitest';
import { type IsaLimit, isaLimits, linearVariantsFor, variantOf } from './catalogue.ts';
import type { TensorDtype, TensorSource } from './model/model-shape.ts';
import { loadNative } from './native.ts';
import { formats, randomBlocks } from './quantised-blocks.fixture.ts';

const native = loadNative();
const scratch = mkdtempSync(join(tmpdir(), 'variator-linear-'));
afterAll(() => {
  native.limitIsa('all');
  rmSync(scratch, { recursive: true });
});
const variants = linearVariantsFor(native.probeMachine(1).features);
const exactVariants = variants.filter((id) => variantOf(id).bits === 'int8');
const residualVariants = variants.filter((id) => variantOf(id).bits === 'int8-residual');
const roundedVariants = variants.filter((id) => variantOf(id).bits === 'int4-rounded');

let state = 20_261_126;
const random = () => {
  state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
  return state / 2 ** 32;
};

function tensorOf(dtype: TensorDtype, rows: number, columns: number): TensorSource {
  const format = formats[dtype];
  const data =
    format === undefined
      ? Buffer.from(Float32Array.from({ length: rows * columns }, () => random() - 0.5).buffer)
      : randomBlocks(format, Math.floor(random() * 2 ** 31), rows * columns);
  const file = join(scratch, `${dtype}-${rows}-${columns}`);
  writeFileSync(file, data);
  return { file, offset: 0, byteLength: data.length, dtype, rows, columns };
}

/** The defaults, of the reference too. */
const plain = Int32Array.of(6, 4, 24, 1);
/** Rows at once, groups fetched ahead, rows in a slab, panels at once. */
const tunings = [
  [1, 0, 1, 1],
  [2, 16, 2, 3],
  [3, 1, 3, 1],
  [4, 4, 4, 32],
  [5, 8, 11, 2],
  [6, 2, 25, 4],
  [6, 4, 96, 1],
].map((numbers) => Int32Array.from(numbers));

const activations = (rowCount: number, columns: number) =>
  Float32Array.from({ length: rowCount * columns }, () => (random() - 0.5) * 8 ** (random() * 3 - 1));

/** [rows, columns] as the reference reads them: the unit matrix times the tensor. */
function weightsOf(tensor: TensorSource): Float32Array {
  const { rows, columns } = tensor;
  const unit = new Float32Array(columns * columns);
  for (let i = 0; i < columns; i += 1) unit[i * columns + i] = 1;
  const transposed = native.multiply(tensor, 'linear.reference', unit, columns, plain);
  return Float32Array.from(
    { length: rows * columns },
    (_, i) => transposed[(i % columns) * rows + Math.floor(i / columns)] ?? Number.NaN,
  );
}

const shapes: readonly (readonly [TensorDtype, number, number])[] = [
  ['F32', 1, 1],
  ['F32', 33, 95],
  ['BF16', 70, 257],
  ['Q8_0', 77, 96],
  ['Q4_0', 65, 32],
  ['Q4_1', 95, 160],
  ['Q5_0', 31, 64],
  ['Q5_1', 32, 224],
  ['Q4_K', 40, 512],
  ['Q5_K', 3, 256],
  ['Q6_K', 129, 256],
];
const rowCounts = [1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 25];

test.each(shapes)(
  '%s [%i, %i]: int8 and int4 give the same bits by every variant and blocking, and so do the rounded ones',
  (dtype, rows, columns) => {
    const tensor = tensorOf(dtype, rows, columns);
    const most = Math.max(...rowCounts);
    const x = activations(most, columns);
    const expected = native.multiply(tensor, 'linear.int8-generic', x, most, plain);
    const rounded = native.multiply(tensor, 'linear.int4-rounded-generic', x, most, plain);
    const residual = native.multiply(tensor, 'linear.int8-residual-generic', x, most, plain);
    for (const id of residualVariants) {
      for (const tuning of tunings)
        expect(native.multiply(tensor, id, x, most, tuning), id).toEqual(residual);
    }
    expect([...expected, ...rounded].every(Number.isFinite)).toBe(true);
    for (const tuning of tunings) {
      for (const id of exactVariants) {
        const got = native.multiply(tensor, id, x, most, tuning);
        expect(got, `${id}, tuning ${tuning.join(' ')}`).toEqual(expected);
      }
      for (const id of roundedVariants) {
        const got = native.multiply(tensor, id, x, most, tuning);
        expect(got, `${id}, tuning ${tuning.join(' ')}`).toEqual(rounded);
      }
    }
    for (const rowCount of rowCounts) {
      for (const id of exactVariants) {
        const got = native.multiply(tensor, id, x.subarray(0, rowCount * columns), rowCount, plain);
        expect(got, `${id}, the first ${rowCount} rows`).toEqual(expected.subarray(0, rowCount * rows));
      }
    }
    if (['Q4_0', 'Q4_1', 'Q4_K'].includes(dtype)) expect(rounded).toEqual(expected);
  },
);

test.each(shapes)(
  '%s [%i, %i] is as near to the reference as its roundings allow',
  (dtype, rows, columns) => {
    const tensor = tensorOf(dtype, rows, columns);
    const weights = weightsOf(tensor);
    const x = activations(5, columns);
    const reference = native.multiply(tensor, 'linear.reference', x, 5, plain);
    const got = native.multiply(tensor, 'linear.int8-generic', x, 5, plain);
    const rounded = native.multiply(tensor, 'linear.int4-rounded-generic', x, 5, plain);
    const residual = native.multiply(tensor, 'linear.int8-residual-generic', x, 5, plain);
    // Codes of these are kept; the others are rounded to 256 steps, or under scales in half precision.
    const isExact = ['Q8_0', 'Q4_0', 'Q4_1', 'Q5_0', 'Q5_1'].includes(dtype);
    const groupStarts = Array.from({ length: Math.ceil(columns / 32) }, (_, group) => group * 32);
    for (let at = 0; at < 5 * rows; at += 1) {
      const row = Math.floor(at / rows);
      let bound = 0;
      let residualBound = 0;
      let roundedBound = 0;
      for (const first of groupStarts) {
        const end = Math.min(columns, first + 32);
        const own = weights.slice((at % rows) * columns + first, (at % rows) * columns + end);
        const values = x.slice(row * columns + first, row * columns + end);
        const xMost = Math.max(...values.map(Math.abs));
        const weightSum = own.reduce((sum, weight) => sum + Math.abs(weight), 0);
        const xSum = values.reduce((sum, value) => sum + Math.abs(value), 0);
        const weightMost = Math.max(...own.map(Math.abs));
        bound += (xMost / 254) * weightSum * 1.001 + 1e-5 * xSum * weightMost;
        residualBound += (xMost / 254 ** 2) * weightSum * 1.01 + 2e-5 * xSum * weightMost;
        if (!isExact) bound += xSum * weightMost * 0.006;
        if (!isExact) residualBound += xSum * weightMost * 0.006;
        // A step of 16 between the extremes, of which 10 % at either end may be cut off.
        roundedBound += xSum * (Math.max(...own) - Math.min(...own)) * 0.11;
      }
      const expected = reference[at] ?? Number.NaN;
      expect(Math.abs((got[at] ?? Number.NaN) - expected)).toBeLessThanOrEqual(bound);
      expect(Math.abs((residual[at] ?? Number.NaN) - expected)).toBeLessThanOrEqual(residualBound);
      expect(Math.abs((rounded[at] ?? Number.NaN) - expected)).toBeLessThanOrEqual(bound + roundedBound);
    }
  },
);

test.each(shapes)(
  '%s [%i, %i]: bf16 is batch-invariant and as near as its roundings allow',
  (dtype, rows, columns) => {
    const tensor = tensorOf(dtype, rows, columns);
    const weights = weightsOf(tensor);
    const most = Math.max(...rowCounts);
    const x = activations(most, columns);
    const reference = native.multiply(tensor, 'linear.reference', x, most, plain);
    for (const id of variants.filter((each) => variantOf(each).kind === 'bf16')) {
      const got = native.multiply(tensor, id, x, most, plain);
      for (const tuning of tunings) expect(native.multiply(tensor, id, x, most, tuning)).toEqual(got);
      for (let at = 0; at < most * rows; at += 1) {
        const own = weights.subarray((at % rows) * columns, ((at % rows) + 1) * columns);
        const row = Math.floor(at / rows) * columns;
        const products = own.reduce((sum, weight, k) => sum + Math.abs(weight * (x[row + k] ?? 0)), 0);
        // Half a unit in the last of 8 binary places, of each factor; and the sums.
        const bound = products * (2 ** -7 + 2 ** -16 + 1e-4) + 1e-30;
        expect(Math.abs((got[at] ?? Number.NaN) - (reference[at] ?? 0)), id).toBeLessThanOrEqual(bound);
      }
    }
  },
);

test('a process held to fewer instructions names fewer, refuses what needs more, and computes the same bits', () => {
  const tensor = tensorOf('Q4_1', 70, 96);
  const x = activations(9, 96);
  const outputsUnder = (isa: IsaLimit) => {
    native.limitIsa(isa);
    const { features } = native.probeMachine(1);
    const named = linearVariantsFor(features);
    return { features, named, outputs: named.map((id) => native.multiply(tensor, id, x, 9, plain)) };
  };
  const all = outputsUnder('all');
  for (const isa of isaLimits) {
    const { features, named, outputs } = outputsUnder(isa);
    expect(all.features).toEqual(expect.arrayContaining([...features]));
    for (const id of all.named) {
      const index = named.indexOf(id);
      if (index < 0) expect(() => native.multiply(tensor, id, x, 9, plain)).toThrow(/cannot run/);
      else expect(outputs[index]).toEqual(all.outputs[all.named.indexOf(id)]);
    }
  }
  native.limitIsa('generic');
  expect(native.probeMachine(1).features).toEqual([]);
  expect(linearVariantsFor([], new Set(['F32']))).toEqual([
    'linear.int8-generic',
    'linear.int4-rounded-generic',
    'linear.int8-residual-generic',
    'linear.bf16-generic',
    'linear.reference',
  ]);
  expect(linearVariantsFor([], new Set(['Q4_1']))).toEqual([
    'linear.int4-generic',
    'linear.int8-generic',
    'linear.int8-residual-generic',
    'linear.bf16-generic',
    'linear.reference',
  ]);
  native.limitIsa('all');
  expect(() => native.limitIsa('sse9' as IsaLimit)).toThrow(/^isa: sse9 is not one of generic, avx2/);
});
