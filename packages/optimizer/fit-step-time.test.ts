import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import {
  predictMs,
  type StepFeatures,
  type StepTimeModel,
  sevenTermsMs,
} from '@variator/scheduler/step-time';
import { expect, test } from 'vitest';
import { fitStepTime } from './fit-step-time.ts';
import { rooflinePrior, type StepTimePrior } from './roofline-prior.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';
import { bucketOf, keepSamples, type StepSample } from './step-sample.ts';

const envelope: Envelope = {
  deviceKind: 'cpu',
  deviceName: 'test CPU',
  modelId: 'SmolLM2',
  modelHash: 'm',
  linearVariants: ['linear.int8-avx512vnni', 'linear.reference'],
  attentionVariants: ['attention.reference'],
  threadCount: 2,
  kvBlockCount: 1024,
  kvBlockCounts: {},
  kvBlockSize: 16,
  maxModelLenTokens: 2048,
  maxTokenBudget: 512,
  maxRunningCount: 32,
  maxDraftTokenCount: 0,
  vocabularySize: 49152,
  layerCount: 30,
  headCount: 9,
  headSize: 64,
  activeParameterCount: 134.5e6,
  weightBytes: { 'linear.int8-avx512vnni': 143e6, 'linear.reference': 84e6 },
  kvBytesPerToken: 46080,
  probe: {
    cpuModel: 'test',
    coreCount: 2,
    features: [],
    readBytesPerSecond: 30e9,
    float32FlopsPerSecond: 220e9,
    int8OpsPerSecond: 900e9,
  },
};
const path: ExecutionPath = {
  linear: 'linear.int8-avx512vnni',
  attention: 'attention.reference',
  threadCount: 2,
  tokenBudget: 512,
  maxRunningCount: 32,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
};
const prior = rooflinePrior(envelope, path);

/** What the machine "really" does: every coefficient off the roofline by its own factor. */
const truth: StepTimePrior = {
  kneeTokens: 16,
  betaMs: {
    perStep: prior.betaMs.perStep * 1.6,
    perToken: prior.betaMs.perToken * 4,
    perTokenAboveKnee: prior.betaMs.perTokenAboveKnee * 0.7,
    perDecodeSequence: 0.04,
    perPrefillSequence: 0.1,
    perDecodeContextToken: prior.betaMs.perDecodeContextToken * 2.5,
    perPrefillAttention: prior.betaMs.perPrefillAttention * 6,
  },
};

function features(decode: readonly number[], prefill: readonly (readonly [number, number])[]): StepFeatures {
  const prefillTokenCount = prefill.reduce((sum, [chunk]) => sum + chunk, 0);
  return {
    tokenCount: decode.length + prefillTokenCount,
    decodeSequenceCount: decode.length,
    prefillSequenceCount: prefill.length,
    prefillTokenCount,
    decodeContextTokens: decode.reduce((sum, context) => sum + context, 0),
    prefillAttention: prefill.reduce((sum, [chunk, cached]) => sum + chunk * (cached + chunk / 2), 0),
  };
}

/** Chats: up to 12 decode at short contexts, a small chunk now and then. */
function chatStep(random: SeededRandom): StepFeatures {
  const decode = Array.from({ length: 1 + random.below(12) }, () => 40 + random.below(300));
  return features(decode, random.uniform() < 0.3 ? [[8 + random.below(80), 0]] : []);
}

/** A flood of long prompts: chunks of up to 512 onto up to 600 cached. */
function floodStep(random: SeededRandom): StepFeatures {
  const decode = Array.from({ length: random.below(8) }, () => 500 + random.below(300));
  return features(decode, [[64 + random.below(448), random.below(600)]]);
}

function measure(count: number, seed: number, make: (random: SeededRandom) => StepFeatures): StepSample[] {
  const random = seededRandom(seed);
  return Array.from({ length: count }, (_, at) => {
    const step = make(random);
    const outlier = random.uniform() < 0.01 ? 1.3 + 0.7 * random.uniform() : 1;
    const deviceMs = predictMs(truth, step) * Math.exp(0.03 * random.normal()) * outlier;
    return { ...step, deviceMs, at, foreignCpuShare: 0.02 };
  });
}

const fit = (samples: readonly StepSample[], from: StepTimePrior = prior) =>
  fitStepTime({ samples, prior: from, deviceKind: 'cpu', modelHash: 'm', kernelsId: 'k', now: 5 });

function mapeAgainstTruth(
  model: StepTimeModel,
  seed: number,
  make: (random: SeededRandom) => StepFeatures,
): number {
  const random = seededRandom(seed);
  const errors = Array.from({ length: 400 }, () => {
    const step = make(random);
    return Math.abs(predictMs(model, step) / predictMs(truth, step) - 1);
  });
  return errors.reduce((sum, error) => sum + error, 0) / errors.length;
}

test('at 3 % noise the held-out error is at most 4 %, in each regime and across them', () => {
  const mixed = [...measure(1500, 1, chatStep), ...measure(1500, 2, floodStep)];
  const learned = fit(mixed);
  expect(learned.heldOutMape).toBeLessThanOrEqual(0.04);
  expect(learned.heldOutCount).toBeGreaterThan(20);
  expect(learned.logBand90).toBeGreaterThan(0.02);
  expect(learned.logBand90).toBeLessThan(0.1);
  expect(mapeAgainstTruth(learned, 3, chatStep)).toBeLessThan(0.03);
  expect(mapeAgainstTruth(learned, 4, floodStep)).toBeLessThan(0.03);
});

test('thirty chat steps teach chats to 6 %, and floods better than the prior knew them', () => {
  const samples = measure(30, 5, chatStep);
  const learned = fit(samples);
  expect(mapeAgainstTruth(learned, 6, chatStep)).toBeLessThan(0.06);
  expect(mapeAgainstTruth(learned, 7, floodStep)).toBeLessThan(mapeAgainstTruth(prior, 7, floodStep));
});

test('below ten samples the prior is scaled as a whole', () => {
  const few = fit(measure(9, 8, chatStep));
  expect(few.heldOutMape).toBeNull();
  expect(few.kneeTokens).toBe(prior.kneeTokens);
  expect(few.betaMs.perToken / prior.betaMs.perToken).toBeCloseTo(
    few.betaMs.perStep / prior.betaMs.perStep,
    4,
  );
  expect(fit([]).betaMs.perStep).toBeCloseTo(prior.betaMs.perStep, 3);
});

test('what chats taught survives twelve thousand flood steps', () => {
  const chats = measure(1000, 9, chatStep);
  const floods = measure(12_000, 10, floodStep).map((sample) => ({ ...sample, at: sample.at + 10_000 }));
  const learned = fit([...chats, ...floods]);
  expect(learned.sampleCount).toBeLessThan(3000);
  expect(mapeAgainstTruth(learned, 11, chatStep)).toBeLessThan(0.03);
});

test('the seven terms never fall when any feature grows', () => {
  const learned = fit([...measure(500, 12, chatStep), ...measure(500, 13, floodStep)]);
  const base = features([100, 200], [[30, 64]]);
  for (const name of Object.keys(base) as (keyof StepFeatures)[]) {
    let before = 0;
    for (let growth = 0; growth < 10; growth += 1) {
      const ms = sevenTermsMs(learned, { ...base, [name]: base[name] * (1 + growth) });
      expect(ms).toBeGreaterThanOrEqual(before);
      before = ms;
    }
  }
  for (const beta of Object.values(learned.betaMs)) expect(beta).toBeGreaterThanOrEqual(0);
});

test('a fit is named by its content: the same samples give the same id at any time, other samples another', () => {
  const samples = measure(200, 14, chatStep);
  const again = fitStepTime({
    samples: [...samples].reverse(),
    prior,
    deviceKind: 'cpu',
    modelHash: 'm',
    kernelsId: 'k',
    now: 999,
  });
  expect(again.fitId).toBe(fit(samples).fitId);
  expect(fit(measure(200, 15, chatStep)).fitId).not.toBe(again.fitId);
});

test('a prior with a zero term can still learn that term', () => {
  const blind = { ...prior, betaMs: { ...prior.betaMs, perDecodeContextToken: 0, perPrefillAttention: 0 } };
  const learned = fit([...measure(800, 16, chatStep), ...measure(800, 17, floodStep)], blind);
  expect(learned.betaMs.perPrefillAttention).toBeGreaterThan(0.5 * truth.betaMs.perPrefillAttention);
});

test('steps disturbed by other processes sway a fit little beside quiet ones, and make it where there are none', () => {
  const disturb = (samples: readonly StepSample[]) =>
    samples.map((sample) => ({ ...sample, deviceMs: sample.deviceMs * 2, foreignCpuShare: 0.5 }));
  const quiet = measure(200, 18, chatStep);
  const both = fit([...quiet, ...disturb(measure(60, 19, chatStep))]);
  expect(mapeAgainstTruth(both, 20, chatStep)).toBeLessThan(0.05);
  expect(both.heldOutMape).toBeLessThan(0.08);
  const loud = fit(disturb(quiet));
  expect(mapeAgainstTruth(loud, 20, chatStep)).toBeGreaterThan(0.8);
});

test('a bucket keeps its newest 32 samples', () => {
  const step = features([100], []);
  const samples = Array.from({ length: 100 }, (_, at) => ({ ...step, deviceMs: 5, at, foreignCpuShare: 0 }));
  const kept = keepSamples(samples);
  expect(kept).toHaveLength(32);
  expect(Math.min(...kept.map((sample) => sample.at))).toBe(68);
  expect(bucketOf(features([100], []))).not.toBe(bucketOf(features([100], [[200, 0]])));
});

test('the roofline reads weights at the measured bandwidth and computes at the measured rate', () => {
  expect(prior.betaMs.perStep).toBeCloseTo((143e6 / (0.8 * 30e9)) * 1000 + 0.1, 6);
  const perTokenMs = prior.betaMs.perToken + prior.betaMs.perTokenAboveKnee;
  expect(perTokenMs).toBeCloseTo(((2 * 134.5e6) / (0.7 * 900e9)) * 1000, 6);
  expect(prior.kneeTokens).toBe(16);
  const single = rooflinePrior(envelope, { ...path, threadCount: 1 });
  expect(single.betaMs.perToken).toBeCloseTo(2 * prior.betaMs.perToken, 9);
});

test('a live path with a small budget does not make larger steps look dear', () => {
  // 0.25 ms a token whatever the size; nothing above 128 tokens was ever run.
  const random = seededRandom(11);
  const samples = Array.from({ length: 300 }, (_, index): StepSample => {
    const prefillTokenCount = 8 * (1 + (index % 15));
    const tokenCount = prefillTokenCount + 4;
    const noise = 1 + 0.05 * (random.uniform() - 0.5);
    return {
      tokenCount,
      decodeSequenceCount: 4,
      prefillSequenceCount: 1,
      prefillTokenCount,
      decodeContextTokens: 800,
      prefillAttention: prefillTokenCount * 100,
      deviceMs: (3 + 0.25 * tokenCount) * noise,
      at: index,
      foreignCpuShare: 0,
    };
  });
  const dear: StepTimePrior = {
    kneeTokens: 128,
    betaMs: { ...prior.betaMs, perStep: 3, perToken: 0.2, perTokenAboveKnee: 2 },
  };
  const fit = fitStepTime({ samples, prior: dear, deviceKind: 'd', modelHash: 'm', kernelsId: 'k', now: 0 });
  const large = {
    tokenCount: 512,
    decodeSequenceCount: 4,
    prefillSequenceCount: 1,
    prefillTokenCount: 508,
    decodeContextTokens: 800,
    prefillAttention: 50_800,
  };
  expect(predictMs(fit, large)).toBeLessThan(1.25 * (3 + 0.25 * 512));
});
