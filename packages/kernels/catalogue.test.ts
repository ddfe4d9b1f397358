import { expect, test } from 'vitest';
import {
  catalogue,
  fastestOfEachKind,
  linearVariantsFor,
  variantOf,
  weightBytes,
  worthTrying,
} from './catalogue.ts';
import type { TensorDtype, TensorSource } from './model/model-shape.ts';

const everything = catalogue.flatMap(({ needs }) => needs);
const tensor = (dtype: TensorDtype, rows: number, columns: number): TensorSource => ({
  file: 'f',
  offset: 0,
  byteLength: 77,
  dtype,
  rows,
  columns,
});

test('every variant stands once, and says how near it is unless it is the reference', () => {
  expect(new Set(catalogue.map(({ id }) => id)).size).toBe(catalogue.length);
  for (const { numerics, tolerance } of catalogue) expect(tolerance === '').toBe(numerics === 'exact');
});

test('a model of 4-bit matrices begins with int4, any other with int8, and the reference is always the last', () => {
  const first = (dtypes: TensorDtype[]) => linearVariantsFor(everything, new Set(dtypes))[0];
  expect(first(['Q4_1', 'Q8_0'])).toBe('linear.int4-avx512vnni');
  expect(first(['Q8_0', 'BF16'])).toBe('linear.int8-avx512vnni');
  expect(linearVariantsFor(everything, new Set(['Q4_0'])).some((id) => id.includes('rounded'))).toBe(false);
  expect(linearVariantsFor([], new Set(['Q8_0'])).at(-1)).toBe('linear.reference');
});

test('of each kind the fastest is worth trying, but for the one that is never quicker', () => {
  expect(fastestOfEachKind(linearVariantsFor(everything))).toEqual([
    'linear.int4-avx512vnni',
    'linear.int8-avx512vnni',
    'linear.int4-rounded-avx512vnni',
    'linear.int8-residual-avx512vnni',
    'linear.bf16-avx512bf16',
    'linear.reference',
  ]);
  expect(worthTrying(linearVariantsFor(everything))).not.toContain('linear.int8-residual-avx512vnni');
});

test('bytes of a matrix: padded to panels, without minimums where the format is centred, the head never rounded', () => {
  const groups = 3 * 2;
  expect(weightBytes('linear.int8-generic', tensor('Q8_0', 65, 64), 'layer')).toBe(groups * 1088);
  expect(weightBytes('linear.int8-generic', tensor('Q4_0', 65, 64), 'layer')).toBe(groups * 1152);
  expect(weightBytes('linear.int4-generic', tensor('Q4_0', 65, 64), 'layer')).toBe(groups * 576);
  expect(weightBytes('linear.int4-generic', tensor('Q4_1', 65, 64), 'layer')).toBe(groups * 640);
  expect(weightBytes('linear.int4-generic', tensor('Q8_0', 65, 64), 'layer')).toBe(groups * 1088);
  expect(weightBytes('linear.int8-residual-generic', tensor('Q4_0', 65, 64), 'layer')).toBe(groups * 576);
  expect(weightBytes('linear.int8-residual-generic', tensor('Q8_0', 65, 64), 'layer')).toBe(groups * 1088);
  expect(weightBytes('linear.int4-rounded-generic', tensor('Q8_0', 65, 64), 'layer')).toBe(groups * 640);
  expect(weightBytes('linear.int4-rounded-generic', tensor('Q8_0', 65, 64), 'head')).toBe(groups * 1088);
  expect(weightBytes('linear.bf16-generic', tensor('Q8_0', 65, 64), 'layer')).toBe(groups * 2048);
  expect(weightBytes('linear.reference', tensor('Q8_0', 65, 64), 'layer')).toBe(77);
  expect(variantOf('linear.int4-generic').bits).toBe(variantOf('linear.int8-avx512vnni').bits);
});
