import { expect, test } from 'vitest';
import { type Golden, readGolden, smollm2SecondBest, tinyModels } from './golden-files.fixture.ts';
import { loadModel } from './model/load-model.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const linear = 'linear.reference';
const native = loadNative();

/** Largest difference over the largest logit. */
function relativeDifference(logits: Float32Array, expected: readonly number[]): number {
  const most = Math.max(...expected.map(Math.abs));
  return Math.max(...expected.map((value, i) => Math.abs(value - (logits[i] ?? Number.NaN)))) / most;
}

function expectGoldenLogits(golden: Golden, logits: readonly Float32Array[]): void {
  for (const [i, { last_logits }] of golden.cases.entries()) {
    if (last_logits === undefined) continue;
    expect(relativeDifference(logits[i] ?? new Float32Array(), last_logits)).toBeLessThan(1e-3);
  }
}

for (const name of [...tinyModels, 'stories-5m']) {
  const golden = readGolden(name);
  const open = async (sequenceCount: number, blockSize = 16) => {
    if (golden === null) throw new Error('skipped');
    const driver = new StepDriver(native, await loadModel(golden.modelPath), {
      sequenceCount,
      tokensPerSequence: 320,
      threadCount: 2,
      blockSize,
    });
    await driver.prepare(linear);
    return { golden, driver };
  };
  const tokenCount = Math.max(...(golden?.cases.map(({ greedy }) => greedy.length) ?? [0]));
  const caseCount = golden?.cases.length ?? 0;
  const greedyOf = (tokens: number[][], cases: Golden['cases']) =>
    tokens.map((own, i) => own.slice(0, cases[i]?.greedy.length));

  test.skipIf(golden === null)(`${name}: each prompt alone gives the golden tokens and logits`, async () => {
    const { golden, driver } = await open(1);
    for (const one of golden.cases) {
      driver.rewind(0, 0);
      const settings = { linear, chunkSize: 512, isLogitsWanted: true } as const;
      const { tokens, logits } = await driver.generate([one.prompt], one.greedy.length, settings);
      expect(tokens[0]).toEqual(one.greedy);
      expectGoldenLogits({ ...golden, cases: [one] }, logits);
    }
    driver.close();
  });

  for (const chunkSize of [1, 7, 64]) {
    test.skipIf(golden === null)(
      `${name}: all prompts in one batch, in chunks of ${chunkSize}, give the golden tokens and logits`,
      async () => {
        const { golden, driver } = await open(caseCount, chunkSize === 7 ? 5 : 16);
        const prompts = golden.cases.map(({ prompt }) => prompt);
        const settings = { linear, chunkSize, isLogitsWanted: true } as const;
        const { tokens, logits } = await driver.generate(prompts, tokenCount, settings);
        expect(greedyOf(tokens, golden.cases)).toEqual(golden.cases.map(({ greedy }) => greedy));
        expectGoldenLogits(golden, logits);
        driver.close();
      },
    );
  }

  test.skipIf(golden === null)(
    `${name}: a prompt onto a warm cache gives the same bits as a cold one`,
    async () => {
      const { golden, driver } = await open(1);
      const longest = golden.cases.reduce((a, b) => (b.prompt.length > a.prompt.length ? b : a));
      const end = { linear, isLogitsWanted: true } as const;
      const cold = await driver.step([{ sequence: 0, tokenIds: longest.prompt, isSampled: true }], end);
      for (const cachedCount of [16, 17, longest.prompt.length - 1]) {
        if (cachedCount >= longest.prompt.length) continue;
        driver.rewind(0, cachedCount);
        const rest = { sequence: 0, tokenIds: longest.prompt.slice(cachedCount), isSampled: true };
        const warm = await driver.step([rest], end);
        expect(warm.logits).toEqual(cold.logits);
        expect(warm.sampledTokenIds).toEqual(cold.sampledTokenIds);
      }
      driver.close();
    },
  );
}

const deepseek = readGolden('deepseek-v3');
test.skipIf(deepseek === null)(
  'deepseek-v3 with keys and values of every head in the cache gives the golden tokens and logits',
  async () => {
    if (deepseek === null) return;
    const { shape, tensors } = await loadModel(deepseek.modelPath);
    const expanded = { ...shape, latent: shape.latent && { ...shape.latent, isAbsorbed: false } };
    const options = {
      sequenceCount: deepseek.cases.length,
      tokensPerSequence: 320,
      threadCount: 2,
      blockSize: 16,
    };
    const driver = new StepDriver(native, { shape: expanded, tensors }, options);
    const prompts = deepseek.cases.map(({ prompt }) => prompt);
    const settings = { linear, chunkSize: 64, isLogitsWanted: true } as const;
    const { tokens, logits } = await driver.generate(prompts, 24, settings);
    expect(tokens).toEqual(deepseek.cases.map(({ greedy }) => greedy));
    expectGoldenLogits(deepseek, logits);
    driver.close();
  },
);

const smollm2 = readGolden('smollm2');
test.skipIf(smollm2 === null)(
  'smollm2, batched in chunks of 64: the golden logits, and its tokens wherever they are the best',
  async () => {
    if (smollm2 === null) return;
    const driver = new StepDriver(native, await loadModel(smollm2.modelPath), {
      sequenceCount: smollm2.cases.length,
      tokensPerSequence: 768,
      threadCount: 2,
      blockSize: 16,
    });
    await driver.prepare(linear);
    const forced = smollm2.cases.map(({ greedy }) => greedy);
    const prompts = smollm2.cases.map(({ prompt }) => prompt);
    const settings = { linear, chunkSize: 64, isLogitsWanted: true, forced } as const;
    const { tokens, logits } = await driver.generate(prompts, 48, settings);
    for (const [i, { greedy, last_logits_top5 }] of smollm2.cases.entries()) {
      const differing = greedy.flatMap((token, j) => (token === tokens[i]?.[j] ? [] : [j]));
      expect(differing).toEqual(smollm2SecondBest[i] ?? []);
      const best = [...(logits[i] ?? [])].map((logit, token) => [token, logit] as const);
      best.sort((a, b) => b[1] - a[1]);
      for (const [rank, [token, logit]] of (last_logits_top5 ?? []).entries()) {
        expect(best[rank]?.[0]).toBe(token);
        expect(best[rank]?.[1]).toBeCloseTo(logit, 2);
      }
    }
    driver.close();
  },
);
