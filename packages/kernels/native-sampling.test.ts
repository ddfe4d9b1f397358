/** What the native border does to logits between the LM head and the token, held against the plain arithmetic in float64. */
import { fileURLToPath } from 'node:url';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { loadModel } from './model/load-model.ts';
import { type LogitRules, loadNative, NativeError } from './native.ts';
import { type Chunk, StepDriver, type StepSettings } from './step-driver.fixture.ts';

const native = loadNative();
const modelFolder = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
const linear = 'linear.reference';
const prompt = [1, 521, 277, 201, 508];
const vocabularySize = 2048;
let driver: StepDriver;

beforeAll(async () => {
  driver = new StepDriver(native, await loadModel(modelFolder), {
    sequenceCount: 3,
    tokensPerSequence: 256,
    threadCount: 2,
    blockSize: 16,
  });
});
afterAll(() => driver.close());

async function step(chunks: readonly Chunk[], settings: Partial<StepSettings> = {}) {
  for (const { sequence } of chunks) driver.rewind(sequence, 0);
  return driver.step(chunks, { linear, isLogitsWanted: true, ...settings });
}
const chunk = (changes: Partial<Chunk> = {}): Chunk => ({
  sequence: 0,
  tokenIds: prompt,
  isSampled: true,
  ...changes,
});
const noRules: LogitRules = {
  repetitionPenalties: Float32Array.of(1),
  frequencyPenalties: Float32Array.of(0),
  presencePenalties: Float32Array.of(0),
  countStarts: Int32Array.of(0, 0),
  countedTokenIds: new Int32Array(0),
  tokenCounts: new Int32Array(0),
  biasStarts: Int32Array.of(0, 0),
  biasTokenIds: new Int32Array(0),
  biases: new Float32Array(0),
};
const ranked = (logits: ArrayLike<number>) =>
  Array.from({ length: vocabularySize }, (_, id) => id).sort(
    (a, b) => (logits[b] ?? 0) - (logits[a] ?? 0) || a - b,
  );
const logSoftmax = (logits: ArrayLike<number>): number[] => {
  const values = Array.from({ length: vocabularySize }, (_, id) => logits[id] ?? Number.NaN);
  const most = Math.max(...values);
  const normaliser = most + Math.log(values.reduce((sum, value) => sum + Math.exp(value - most), 0));
  return values.map((value) => value - normaliser);
};

test('log-probabilities are those of the logits: the token first, then the likeliest, all of them summing to 1', async () => {
  const scoring = { topCounts: Int32Array.of(128), scoredTokenIds: new Int32Array(prompt.length).fill(-1) };
  const { logits, logprobs, logprobTokenIds, sampledTokenIds } = await step(
    [chunk({ temperature: 1.5, seed: 5 })],
    { scoring },
  );
  const expected = logSoftmax(logits ?? []);
  expect(logprobTokenIds?.[0]).toBe(sampledTokenIds[0]);
  expect([...(logprobTokenIds ?? [])].slice(1)).toEqual(ranked(logits ?? []).slice(0, 128));
  for (const [place, tokenId] of (logprobTokenIds ?? []).entries()) {
    expect(logprobs?.[place]).toBeCloseTo(expected[tokenId] ?? Number.NaN, 5);
  }
  // Every token of the vocabulary as the one that follows the prompt.
  let sum = 0;
  for (let first = 0; first < vocabularySize; first += 3) {
    const followers = [first, first + 1, first + 2].filter((id) => id < vocabularySize);
    const one = await step(
      followers.map((_, sequence) => chunk({ sequence, isSampled: false })),
      {
        isLogitsWanted: false,
        scoring: {
          topCounts: new Int32Array(followers.length),
          scoredTokenIds: Int32Array.from(followers.flatMap((id) => [-1, -1, -1, -1, id])),
        },
      },
    );
    for (const logprob of one.logprobs ?? []) sum += Math.exp(logprob);
  }
  expect(sum).toBeCloseTo(1, 5);
});

test('scored prompt tokens get what their own prefixes give, whatever the chunk, beside sequences that ask nothing', async () => {
  const long = Array.from({ length: 150 }, (_, i) => (i * 37 + 11) % vocabularySize);
  const followers = [...long.slice(1), -1];
  const plain = chunk({ sequence: 1, tokenIds: [7, 8, 9] });
  const whole = await step([plain, chunk({ tokenIds: long, isSampled: true })], {
    isLogitsWanted: false,
    scoring: { topCounts: Int32Array.of(-1, 2), scoredTokenIds: Int32Array.from([-1, -1, -1, ...followers]) },
  });
  expect(whole.logprobs?.length).toBe(150 * 3);
  const values: number[] = [];
  const ids: number[] = [];
  for (let from = 0; from < long.length; from += 7) {
    const tokenIds = long.slice(from, from + 7);
    driver.rewind(0, from);
    const { logprobs, logprobTokenIds } = await driver.step(
      [chunk({ tokenIds, isSampled: from + 7 >= long.length })],
      {
        linear,
        scoring: {
          topCounts: Int32Array.of(2),
          scoredTokenIds: Int32Array.from(followers.slice(from, from + 7)),
        },
      },
    );
    values.push(...(logprobs ?? []));
    ids.push(...(logprobTokenIds ?? []));
  }
  expect(values).toEqual([...(whole.logprobs ?? [])]);
  expect(ids).toEqual([...(whole.logprobTokenIds ?? [])]);
  for (const length of [1, 64, 65, 149]) {
    const { logits } = await step([chunk({ tokenIds: long.slice(0, length) })]);
    const expected = logSoftmax(logits ?? []);
    expect(ids[3 * (length - 1)]).toBe(long[length]);
    expect(values[3 * (length - 1)]).toBeCloseTo(expected[long[length] ?? -1] ?? Number.NaN, 5);
  }
});

test('biases, then repetition, frequency and presence change the logits that greedy sees, and not the log-probabilities', async () => {
  const scoring = { topCounts: Int32Array.of(1), scoredTokenIds: new Int32Array(prompt.length).fill(-1) };
  const { logits, sampledTokenIds } = await step([chunk()]);
  const before = [...(logits ?? [])];
  const order = ranked(before);
  const [first = 0, second = 0, third = 0, fourth = 0] = order;
  expect(sampledTokenIds[0]).toBe(first);
  const cases: [Partial<LogitRules>, (adjusted: number[]) => void][] = [
    [
      { biasStarts: Int32Array.of(0, 1), biasTokenIds: Int32Array.of(77), biases: Float32Array.of(100) },
      (adjusted) => {
        adjusted[77] = (adjusted[77] ?? 0) + 100;
      },
    ],
    [
      {
        biasStarts: Int32Array.of(0, 2),
        biasTokenIds: Int32Array.of(first, second),
        biases: Float32Array.of(Number.NEGATIVE_INFINITY, -100),
      },
      (adjusted) => {
        adjusted[first] = Number.NEGATIVE_INFINITY;
        adjusted[second] = (adjusted[second] ?? 0) - 100;
      },
    ],
    [
      {
        repetitionPenalties: Float32Array.of(3),
        frequencyPenalties: Float32Array.of(0.5),
        presencePenalties: Float32Array.of(-0.25),
        countStarts: Int32Array.of(0, 4),
        countedTokenIds: Int32Array.of(first, second, third, fourth),
        tokenCounts: Int32Array.of(2, 0, 1, 0),
      },
      (adjusted) => {
        for (const [id, count] of [
          [first, 2],
          [second, 0],
          [third, 1],
          [fourth, 0],
        ] as const) {
          const logit = adjusted[id] ?? 0;
          adjusted[id] = (logit > 0 ? logit / 3 : logit * 3) - 0.5 * count + (count > 0 ? 0.25 : 0);
        }
      },
    ],
  ];
  for (const [change, adjust] of cases) {
    const adjusted = [...before];
    adjust(adjusted);
    const best = ranked(adjusted)[0] ?? -1;
    const ruled = await step([chunk()], { rules: { ...noRules, ...change }, scoring });
    expect(best).not.toBe(first);
    expect(ruled.sampledTokenIds[0]).toBe(best);
    expect(ruled.logprobTokenIds?.[1]).toBe(first);
    expect(ruled.logprobs?.[0]).toBeCloseTo(logSoftmax(before)[best] ?? Number.NaN, 5);
  }
});

test('a banned token is never drawn, however hot', async () => {
  const { logits } = await step([chunk()]);
  const banned = ranked(logits ?? []).slice(0, 2000);
  const rules = {
    ...noRules,
    biasStarts: Int32Array.of(0, banned.length),
    biasTokenIds: Int32Array.from(banned),
    biases: new Float32Array(banned.length).fill(Number.NEGATIVE_INFINITY),
  };
  for (let seed = 0; seed < 40; seed += 1) {
    const { sampledTokenIds } = await step([chunk({ temperature: 2, topP: seed % 2 ? 0.9 : 1, seed })], {
      rules,
    });
    expect(banned).not.toContain(sampledTokenIds[0]);
  }
});

test('min-p keeps the tokens whose probability is a share of the likeliest one, after temperature', async () => {
  const tokenIds = [5];
  const { logits } = await step([chunk({ tokenIds })]);
  const temperature = 2;
  const scaled = logSoftmax((logits ?? new Float32Array()).map((logit) => logit / temperature));
  const most = Math.max(...scaled);
  const kept = ranked(logits ?? []).filter((id) => Math.exp((scaled[id] ?? 0) - most) >= 0.2);
  expect(kept.length).toBeGreaterThan(1);
  expect(kept.length).toBeLessThan(200);
  const drawn = new Set<number>();
  for (let seed = 0; seed < 150; seed += 1) {
    const { sampledTokenIds } = await step([
      chunk({ tokenIds, temperature, minP: 0.2, seed, topP: seed % 2 ? 0.99 : 1 }),
    ]);
    expect(kept).toContain(sampledTokenIds[0]);
    drawn.add(sampledTokenIds[0] ?? -1);
  }
  expect(drawn.size).toBeGreaterThan(1);
  const alone = await step([chunk({ tokenIds, temperature: 2, minP: 1, seed: 3 })]);
  expect(alone.sampledTokenIds[0]).toBe(ranked(logits ?? [])[0]);
});

const broken: [string, Partial<StepSettings> & { minP?: number }, RegExp][] = [
  ['a min-p above 1', { minP: 1.5 }, /^minPs\[0\]/],
  [
    'a penalty that is no number',
    { rules: { ...noRules, frequencyPenalties: Float32Array.of(Number.NaN) } },
    /^frequencyPenalties\[0\]/,
  ],
  [
    'a repetition penalty of 0',
    { rules: { ...noRules, repetitionPenalties: Float32Array.of(0) } },
    /^repetitionPenalties\[0\]/,
  ],
  ['counts that end elsewhere', { rules: { ...noRules, countStarts: Int32Array.of(0, 3) } }, /^countStarts/],
  [
    'a bias on a token that is none',
    {
      rules: {
        ...noRules,
        biasStarts: Int32Array.of(0, 1),
        biasTokenIds: Int32Array.of(2048),
        biases: Float32Array.of(1),
      },
    },
    /^biasTokenIds: 2048/,
  ],
  [
    'an infinite bias',
    {
      rules: {
        ...noRules,
        biasStarts: Int32Array.of(0, 1),
        biasTokenIds: Int32Array.of(5),
        biases: Float32Array.of(Number.POSITIVE_INFINITY),
      },
    },
    /^biases\[0\]/,
  ],
  [
    'bans on every token',
    {
      rules: {
        ...noRules,
        biasStarts: Int32Array.of(0, vocabularySize),
        biasTokenIds: Int32Array.from({ length: vocabularySize }, (_, id) => id),
        biases: new Float32Array(vocabularySize).fill(Number.NEGATIVE_INFINITY),
      },
    },
    /^biases\[0\]: leave no token/,
  ],
  [
    'a top count beyond bounds',
    { scoring: { topCounts: Int32Array.of(129), scoredTokenIds: new Int32Array(5).fill(-1) } },
    /^topCounts/,
  ],
  [
    'too few scored tokens',
    { scoring: { topCounts: Int32Array.of(1), scoredTokenIds: new Int32Array(4) } },
    /^scoredTokenIds: has 4/,
  ],
  [
    'a scored token that is none',
    { scoring: { topCounts: Int32Array.of(1), scoredTokenIds: Int32Array.of(2048, 0, 0, 0, 0) } },
    /^scoredTokenIds: 2048/,
  ],
];
test.each(broken)('a step with %s is refused by name', async (_, { minP = 0, ...settings }, fault) => {
  const refused = step([chunk({ minP })], settings);
  await expect(refused).rejects.toThrow(NativeError);
  await expect(refused).rejects.toThrow(fault);
});
