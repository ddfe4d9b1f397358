import { describe, expect, test } from 'vitest';
import { seededRandom } from './paper-device.ts';
import {
  chargeStep,
  featuresOf,
  predictMs,
  residualPlace,
  type StepTimeFit,
  type StepTimeResiduals,
  sevenTermsMs,
  type TimedEntry,
} from './step-time.ts';

const fit: StepTimeFit = {
  fitId: 'f',
  deviceKind: 'cpu',
  modelHash: 'm',
  kernelsId: 'k',
  fittedAt: 0,
  sampleCount: 1,
  kneeTokens: 8,
  betaMs: {
    perStep: 10,
    perToken: 1,
    perTokenAboveKnee: 2,
    perDecodeSequence: 0.5,
    perPrefillSequence: 3,
    perDecodeContextToken: 0.01,
    perPrefillAttention: 0.002,
  },
  heldOutMape: null,
  heldOutCount: 0,
  logBand90: null,
};

const entry = (kind: TimedEntry['kind'], contextLength: number, tokenCount: number): TimedEntry => ({
  kind,
  contextLength,
  tokenIds: Array.from({ length: tokenCount }, () => 1),
});

describe('the features of a step', () => {
  test('count tokens, sequences, decode context and prefill attention, recompute as prefill', () => {
    const entries = [
      entry('decode', 100, 1),
      entry('decode', 40, 1),
      entry('prefill', 20, 10),
      entry('recompute', 0, 4),
    ];
    expect(featuresOf(entries)).toEqual({
      tokenCount: 16,
      decodeSequenceCount: 2,
      prefillSequenceCount: 2,
      prefillTokenCount: 14,
      decodeContextTokens: 140,
      prefillAttention: 10 * 25 + 4 * 2,
    });
  });

  test('predict by seven terms with a hinge at the knee', () => {
    const entries = [entry('decode', 100, 1), entry('prefill', 20, 10)];
    expect(predictMs(fit, featuresOf(entries))).toBeCloseTo(10 + 11 + 2 * 3 + 0.5 + 3 + 1 + 0.5, 12);
    expect(predictMs(fit, featuresOf([entry('decode', 0, 1)]))).toBeCloseTo(11.5, 12);
  });
});

describe('the residuals of a fit', () => {
  const seen = featuresOf([entry('decode', 100, 1), entry('prefill', 20, 10)]);
  const place = residualPlace(seen);
  const corrected: StepTimeFit = {
    ...fit,
    residuals: {
      center: [...place],
      scale: [1, 1, 1, 1, 1],
      places: [0, 0, 0, 0, 0],
      weights: [1e6],
      logRatios: [Math.log(1.2)],
    },
  };

  test('correct where steps were seen, and nothing far from them', () => {
    expect(predictMs(corrected, seen)).toBeCloseTo(1.2 * sevenTermsMs(fit, seen), 3);
    const few = { ...corrected, residuals: { ...corrected.residuals, weights: [3] } as StepTimeResiduals };
    expect(predictMs(few, seen)).toBeCloseTo(Math.sqrt(1.2) * sevenTermsMs(fit, seen), 6);
    const far = featuresOf(Array.from({ length: 200 }, () => entry('decode', 50_000, 1)));
    expect(predictMs(few, far) / sevenTermsMs(fit, far)).toBeCloseTo(1, 3);
  });

  test('are not believed beyond a factor', () => {
    const absurd = {
      ...corrected,
      residuals: { ...corrected.residuals, logRatios: [5] } as StepTimeResiduals,
    };
    expect(predictMs(absurd, seen)).toBeCloseTo(Math.exp(0.5) * sevenTermsMs(fit, seen), 6);
  });

  test('leave the charge of a step as it is: the measured time, split by the seven terms', () => {
    const entries = [entry('decode', 100, 1), entry('prefill', 20, 10)];
    expect(chargeStep(entries, 7, corrected)).toEqual(chargeStep(entries, 7, fit));
  });
});

describe('the charge of a step', () => {
  const randomEntries = (random: () => number): TimedEntry[] =>
    Array.from({ length: 1 + Math.floor(random() * 40) }, () =>
      random() < 0.6
        ? entry('decode', Math.floor(random() * 4000), 1)
        : entry(
            random() < 0.5 ? 'prefill' : 'recompute',
            Math.floor(random() * 4000),
            1 + Math.floor(random() * 200),
          ),
    );

  test('sums to the measured time to 1e-9, with a fit and without, and nobody pays less than nothing', () => {
    const random = seededRandom(5);
    for (let round = 0; round < 2000; round += 1) {
      const entries = randomEntries(random);
      const deviceMs = random() * 1000;
      for (const by of [fit, null]) {
        const shares = chargeStep(entries, deviceMs, by);
        const sum = shares.reduce((total, share) => total + share, 0);
        expect(Math.abs(sum - deviceMs)).toBeLessThanOrEqual(1e-9 * deviceMs);
        expect(Math.min(...shares)).toBeGreaterThanOrEqual(0);
      }
    }
  });

  test('does not depend on the order of the entries', () => {
    const entries = randomEntries(seededRandom(9));
    const forward = chargeStep(entries, 100, fit);
    const backward = chargeStep([...entries].reverse(), 100, fit).reverse();
    for (const [index, share] of forward.entries()) expect(backward[index]).toBeCloseTo(share, 9);
  });

  test('splits the weight read equally and charges context to whoever attends to it', () => {
    const [short = 0, long = 0] = chargeStep([entry('decode', 0, 1), entry('decode', 1000, 1)], 23, fit);
    expect(short).toBeCloseTo(5 + 1 + 0.5, 9);
    expect(long).toBeCloseTo(5 + 1 + 0.5 + 10, 9);
  });

  test('goes by tokens where there is no fit or it predicts nothing', () => {
    const entries = [entry('decode', 500, 1), entry('prefill', 0, 3)];
    const zero = {
      ...fit,
      betaMs: {
        ...fit.betaMs,
        perStep: 0,
        perToken: 0,
        perTokenAboveKnee: 0,
        perDecodeSequence: 0,
        perPrefillSequence: 0,
        perDecodeContextToken: 0,
        perPrefillAttention: 0,
      },
    };
    expect(chargeStep(entries, 8, null)).toEqual([2, 6]);
    expect(chargeStep(entries, 8, zero)).toEqual([2, 6]);
    expect(chargeStep([], 8, null)).toEqual([]);
  });
});
