import { predictMs } from '@variator/scheduler/step-time';
import { expect, test } from 'vitest';
import { calibrationCases, featuresOfShape, needsCalibration } from './calibration-cases.ts';
import { fitStepTime } from './fit-step-time.ts';
import { priorFor } from './prior-for.ts';
import { rooflinePrior, type StepTimePrior } from './roofline-prior.ts';
import { seededRandom } from './seeded-random.ts';
import { testEnvelope, testFit, testPath } from './test-world.ts';

const prior = rooflinePrior(testEnvelope, testPath);
const cases = calibrationCases(testEnvelope, prior);

test('a few dozen cases, within the envelope, none of which would take long', () => {
  expect(cases.length).toBeGreaterThan(24);
  expect(cases.length).toBeLessThanOrEqual(64);
  const small = { ...testEnvelope, maxRunningCount: 4, maxTokenBudget: 64, maxModelLenTokens: 300 };
  for (const one of calibrationCases(small, prior)) {
    expect(one.decodeSequenceCount).toBeLessThanOrEqual(4);
    expect(one.decodeSequenceCount + one.prefillTokens).toBeLessThanOrEqual(64);
    expect(one.prefillContextTokens + one.prefillTokens).toBeLessThanOrEqual(300);
  }
  for (const one of cases) expect(predictMs(prior, featuresOfShape(one))).toBeLessThanOrEqual(250);
});

test('the first dozen already hold decodes, chunks and both together', () => {
  const start = cases.slice(0, 12);
  expect(start.some((one) => one.prefillTokens === 0)).toBe(true);
  expect(start.some((one) => one.decodeSequenceCount === 0)).toBe(true);
  expect(start.some((one) => one.decodeSequenceCount > 0 && one.prefillTokens > 0)).toBe(true);
});

test('a calibration teaches kernels that never served to 6 %, from a prior that is far off', () => {
  const truth: StepTimePrior = {
    kneeTokens: 32,
    betaMs: {
      perStep: 9,
      perToken: 0.15,
      perTokenAboveKnee: 0.6,
      perDecodeSequence: 0.05,
      perPrefillSequence: 0.2,
      perDecodeContextToken: 0.004,
      perPrefillAttention: 0.003,
    },
  };
  const random = seededRandom(1);
  const samples = cases.map((one, at) => {
    const features = featuresOfShape(one);
    const deviceMs = predictMs(truth, features) * Math.exp(0.03 * random.normal());
    return { ...features, deviceMs, at, foreignCpuShare: 0 };
  });
  const fit = fitStepTime({ samples, prior, deviceKind: 'cpu', modelHash: 'm', kernelsId: 'k', now: 0 });
  const errors = Array.from({ length: 300 }, () => {
    const features = featuresOfShape({
      decodeSequenceCount: random.below(24),
      decodeContextTokens: random.below(6000),
      prefillTokens: 1 + random.below(300),
      prefillContextTokens: random.below(600),
    });
    return Math.abs(predictMs(fit, features) / predictMs(truth, features) - 1);
  });
  expect(errors.reduce((sum, error) => sum + error, 0) / errors.length).toBeLessThan(0.06);
});

test('thousands of equal steps still need calibration, a spread of shapes does not', () => {
  const single = featuresOfShape({ ...cases[0], ...alone });
  expect(needsCalibration(Array.from({ length: 1000 }, () => single))).toBe(true);
  expect(needsCalibration(cases.map(featuresOfShape))).toBe(false);
});
const alone = { decodeSequenceCount: 1, decodeContextTokens: 50, prefillTokens: 0, prefillContextTokens: 0 };

test('kernels without steps inherit what a relative measured of attention, never its linear layers', () => {
  const relative = { path: testPath, fit: testFit };
  const other = { ...testPath, linear: 'linear.int8-generic' } as const;
  const inherited = priorFor(testEnvelope, other, [relative]);
  expect(inherited.betaMs.perPrefillAttention).toBe(testFit.betaMs.perPrefillAttention);
  expect(inherited.betaMs.perStep).toBe(rooflinePrior(testEnvelope, other).betaMs.perStep);
  expect(priorFor(testEnvelope, testPath, [relative])).toEqual(rooflinePrior(testEnvelope, testPath));
});

test('kernels on other threads inherit how far their linear layers were off the roofline, and the knee', () => {
  const measured = { ...testFit.betaMs, perToken: 0.2 };
  const relative = { path: testPath, fit: { ...testFit, betaMs: measured, kneeTokens: 4 } };
  const single = { ...testPath, threadCount: 1 };
  const own = rooflinePrior(testEnvelope, testPath);
  const inherited = priorFor(testEnvelope, single, [relative]);
  expect(inherited.betaMs.perToken / rooflinePrior(testEnvelope, single).betaMs.perToken).toBeCloseTo(
    0.2 / own.betaMs.perToken,
    9,
  );
  expect(inherited.kneeTokens).toBe(4);
  expect(priorFor(testEnvelope, testPath, [relative])).toEqual(own);
});
