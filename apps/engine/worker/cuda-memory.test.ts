import { cudaLinearVariants } from '@variator/kernels/catalogue';
import type { ModelTensors, TensorSource } from '@variator/kernels/model/model-shape';
import { expect, test } from 'vitest';
import { cudaMemoryPlan } from './cuda-memory.ts';

const matrix = (rows: number, columns: number): TensorSource => ({
  file: 'f',
  dtype: 'BF16',
  offset: 0,
  byteLength: 2 * rows * columns,
  rows,
  columns,
});
const head = matrix(1000, 128);
const tensors = { head } as ModelTensors;
const plan = (columns: number, freeBytes: number) =>
  cudaMemoryPlan(cudaLinearVariants, [matrix(4000, columns), head], tensors, 16, freeBytes);
const fp8 = (columns: number) => 4000 * columns + 16_000 + 1000 * 128 + 4000;
const int4 = (columns: number) => 2000 * columns + 16_000 * Math.ceil(columns / 128) + 1000 * 128 + 4000;
const activations = (columns: number) => 16 * (columns + 4);

test('with memory in plenty every variant is offered, and codes are kept free once a format', () => {
  const { linearVariants, weightBytes, codeBytes, kvMemoryBytes } = plan(128, 1e9);
  expect(linearVariants).toEqual(cudaLinearVariants);
  expect(codeBytes).toBe(fp8(128) + int4(128) + activations(128));
  expect(kvMemoryBytes).toBe(0.9e9 - codeBytes);
  expect(weightBytes['linear.cuda-bf16-wgmma']).toBe(2 * (4000 * 128 + 1000 * 128));
  expect(weightBytes['linear.cuda-fp8-gemv']).toBe(fp8(128));
  expect(weightBytes['linear.cuda-int4-mma']).toBe(int4(128));
});

test('formats that would take more than half of what is left are not offered, one by one', () => {
  const formats = (freeBytes: number) =>
    new Set(plan(128, freeBytes).linearVariants.map((id) => /cuda-(\w+)-/.exec(id)?.[1]));
  const both = fp8(128) + int4(128) + activations(128);
  expect(formats((both * 2) / 0.9 + 1)).toEqual(new Set(['bf16', 'fp8', 'int4']));
  expect(formats((both * 2) / 0.9 - 1)).toEqual(new Set(['bf16', 'fp8']));
  // The smaller one may fit where the larger does not.
  expect(formats(((fp8(128) + activations(128)) * 2) / 0.9 - 1)).toEqual(new Set(['bf16', 'int4']));
  expect(formats(1000)).toEqual(new Set(['bf16']));
  expect(plan(128, 1000)).toMatchObject({ codeBytes: 0, kvMemoryBytes: 900 });
});

test('a matrix whose columns do not fit a format leaves it out', () => {
  expect(plan(144, 1e9).linearVariants.some((id) => id.includes('int4'))).toBe(false);
  expect(plan(144, 1e9).linearVariants).toContain('linear.cuda-fp8-mma');
  expect(plan(136, 1e9).linearVariants.every((id) => id.includes('bf16'))).toBe(true);
});
