import { expect, test } from 'vitest';
import { ropeInverseFrequencies, yarnAttentionFactor } from './rope.ts';

const close = (actual: Float32Array, expected: readonly number[]) => {
  expect(actual.length).toBe(expected.length);
  expected.forEach((value, index) => {
    expect(Math.abs((actual[index] ?? Number.NaN) / value - 1)).toBeLessThan(1e-6);
  });
};

test('without scaling, frequencies fall from 1 by theta to the power of 2i / headSize', () => {
  close(ropeInverseFrequencies(8, 10_000, { kind: 'none' }), [1, 0.1, 0.01, 0.001]);
});

test('linear scaling divides every frequency', () => {
  close(ropeInverseFrequencies(8, 10_000, { kind: 'linear', factor: 4 }), [0.25, 0.025, 0.0025, 0.00025]);
});

test("a GGUF file's divisors divide each frequency by its own number", () => {
  close(
    ropeInverseFrequencies(8, 10_000, { kind: 'divisors', divisors: [1, 2, 4, 8] }),
    [1, 0.05, 0.0025, 0.000125],
  );
});

test('llama3 scaling keeps fast pairs, divides slow ones, and blends between', () => {
  // Worked out with transformers' formula in float64.
  close(
    ropeInverseFrequencies(16, 500_000, {
      kind: 'llama3',
      factor: 8,
      lowFrequencyFactor: 1,
      highFrequencyFactor: 4,
      originalMaxPositionCount: 256,
    }),
    [
      1, 0.19392274474868576, 0.010538232746455323, 0.0009115830921521386, 0.00017677669529663688,
      3.428102195952591e-5, 6.647869871181236e-6, 1.2891731721515574e-6,
    ],
  );
});

test('YaRN keeps fast pairs, divides slow ones, and ramps by index between', () => {
  // Worked out apart from this code, with the formulas of the paper in float64.
  const scaled = (headSize: number, theta: number, factor: number, originalMaxPositionCount: number) =>
    ropeInverseFrequencies(headSize, theta, {
      kind: 'yarn',
      factor,
      betaFast: 32,
      betaSlow: 1,
      originalMaxPositionCount,
      isTruncated: true,
    });
  const long = scaled(64, 1_000_000, 4, 32_768);
  close(
    Float32Array.from([0, 8, 16, 20, 24, 31], (pair) => long[pair] ?? Number.NaN),
    [
      1, 0.03162277660168379, 0.0005833333333333333, 4.445698525097307e-5, 7.905694150420949e-6,
      3.84981631514873e-7,
    ],
  );
  const short = scaled(32, 10_000, 8, 2048);
  close(
    Float32Array.from([0, 3, 6, 8, 12, 15], (pair) => short[pair] ?? Number.NaN),
    [1, 0.17782794100389226, 0.023717082451262844, 0.005, 0.000125, 2.2228492625486534e-5],
  );
  expect(yarnAttentionFactor(4)).toBeCloseTo(1.138629436111989, 12);
  expect(yarnAttentionFactor(1)).toBe(1);
});
