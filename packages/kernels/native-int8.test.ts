import { expect, test } from 'vitest';
import { fastestOfEachKind, type LinearVariantId, linearVariantsFor, variantOf } from './catalogue.ts';
import { readGolden, smollm2SecondBest, tinyModels } from './golden-files.fixture.ts';
import { loadModel } from './model/load-model.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const { features } = native.probeMachine(1);
// All int8 variants give the same bits (native-linear.test.ts), so the fastest and the plainest stand for the others.
const int8Variants = linearVariantsFor(features)
  .filter((id) => variantOf(id).kind === 'int8')
  .filter((_, index, all) => index === 0 || index === all.length - 1);

async function openGolden(name: string, sequenceCount: number, linear: LinearVariantId) {
  const golden = readGolden(name);
  if (golden === null) return null;
  const loaded = await loadModel(golden.modelPath);
  const options = { sequenceCount, tokensPerSequence: 768, threadCount: 2, blockSize: 16 };
  const driver = new StepDriver(native, loaded, options);
  await driver.prepare(linear);
  return { golden, driver };
}

/** The fastest of each other kind of bits, too. */
const everyKind = [
  ...int8Variants,
  ...fastestOfEachKind(linearVariantsFor(features)).filter((id) =>
    ['int4-rounded', 'int8-residual', 'bf16'].includes(variantOf(id).kind),
  ),
];
for (const linear of everyKind) {
  for (const name of ['qwen2-bias', 'qwen3-moe', 'deepseek-v3', 'stories-5m']) {
    test.skipIf(readGolden(name) === null)(
      `${linear} gives ${name} the same bits alone, batched, chunked and on one or two threads`,
      async () => {
        const opened = await openGolden(name, 9, linear);
        if (opened === null) return;
        const { golden, driver } = opened;
        const prompts = golden.cases.map(({ prompt }) => prompt);
        const logitsOf = async (own: readonly number[][], chunkSize: number, threadCount: number) => {
          for (const sequence of own.keys()) driver.rewind(sequence, 0);
          for (let sequence = own.length; sequence < 9; sequence++) driver.rewind(sequence, 0);
          const settings = { linear, chunkSize, threadCount, isLogitsWanted: true };
          return driver.generate(own, 12, settings);
        };
        const alone = [];
        for (const prompt of prompts) alone.push(await logitsOf([prompt], 512, 2));
        for (const [chunkSize, threadCount] of [
          [512, 2],
          [64, 1],
          [7, 2],
          [1, 1],
        ] as const) {
          const together = await logitsOf(prompts, chunkSize, threadCount);
          expect(together.tokens).toEqual(alone.map(({ tokens }) => tokens[0]));
          expect(together.logits).toEqual(alone.map(({ logits }) => logits[0]));
        }
        driver.close();
      },
    );
  }

  test(`${linear} gives a row the same bits beside one to nine others`, async () => {
    const opened = await openGolden('llama-gqa', 9, linear);
    if (opened === null) return;
    const { driver } = opened;
    let first: Float32Array | null = null;
    for (let count = 1; count <= 9; count++) {
      for (let sequence = 0; sequence < 9; sequence++) driver.rewind(sequence, 0);
      const chunks = Array.from({ length: count }, (_, sequence) => ({
        sequence,
        tokenIds: [7 + sequence],
        isSampled: true,
      }));
      const { logits } = await driver.step(chunks, { linear, isLogitsWanted: true });
      const own = (logits ?? new Float32Array()).slice(0, 512);
      first ??= own;
      expect(own).toEqual(first);
    }
    driver.close();
  });
}

test.skipIf(readGolden('llama-gqa') === null)(
  'int8 stays near the golden logits of the tiny models',
  async () => {
    const lines: string[] = [];
    for (const name of tinyModels.filter((one) => one !== 'deepseek-v3')) {
      for (const linear of int8Variants) {
        const opened = await openGolden(name, 4, linear);
        if (opened === null) continue;
        const { golden, driver } = opened;
        const prompts = golden.cases.map(({ prompt }) => prompt);
        const settings = { linear, chunkSize: 64, isLogitsWanted: true } as const;
        const { logits } = await driver.generate(prompts, 1, settings);
        const differences = golden.cases.map(({ last_logits = [] }, i) => {
          const most = Math.max(...last_logits.map(Math.abs));
          return Math.max(...last_logits.map((value, j) => Math.abs(value - (logits[i]?.[j] ?? 0)))) / most;
        });
        lines.push(`${name} ${linear}: ${(100 * Math.max(...differences)).toFixed(1)} %`);
        expect(Math.max(...differences)).toBeLessThan(0.05);
        driver.close();
      }
    }
    console.log(`Largest int8 logit difference over the largest logit:\n${lines.join('\n')}`);
  },
);

// Its random router is near a tie everywhere, and its experts weigh two and a half times what others do: where rounding
// moves a token to another expert, the logits are others. Everywhere else they are as near as those of any model.
test.skipIf(readGolden('deepseek-v3') === null)(
  'int8 stays near the reference logits of deepseek-v3 at nine of ten positions',
  async () => {
    const golden = readGolden('deepseek-v3');
    const prompt = golden?.cases.reduce((a, b) => (b.prompt.length > a.prompt.length ? b : a)).prompt ?? [];
    const logitsBy = async (linear: LinearVariantId) => {
      const opened = await openGolden('deepseek-v3', 1, linear);
      const rows: Float32Array[] = [];
      for (const tokenId of prompt) {
        const chunk = { sequence: 0, tokenIds: [tokenId], isSampled: true };
        const step = await opened?.driver.step([chunk], { linear, isLogitsWanted: true });
        rows.push(step?.logits ?? new Float32Array());
      }
      opened?.driver.close();
      return rows;
    };
    const reference = await logitsBy('linear.reference');
    for (const linear of int8Variants) {
      const rows = await logitsBy(linear);
      const differences = reference.map((row, index) => {
        const most = Math.max(...row.map(Math.abs));
        return Math.max(...row.map((value, i) => Math.abs(value - (rows[index]?.[i] ?? Number.NaN)))) / most;
      });
      const near = differences.filter((difference) => difference < 0.07).length;
      const median = [...differences].sort((a, b) => a - b)[differences.length >> 1] ?? 1;
      console.log(
        `deepseek-v3 ${linear}: ${near} of ${prompt.length} positions within 7 %, median ${(100 * median).toFixed(1)} %`,
      );
      expect(near / prompt.length).toBeGreaterThanOrEqual(0.9);
      expect(median).toBeLessThan(0.04);
    }
  },
);

for (const linear of int8Variants) {
  test.skipIf(readGolden('smollm2') === null)(
    `${linear} agrees with smollm2's golden tokens at 94 % or more, and wherever the margin is above 1`,
    async () => {
      const opened = await openGolden('smollm2', 10, linear);
      if (opened === null) return;
      const { golden, driver } = opened;
      const { cases } = golden;
      const forced = cases.map(({ greedy }) => greedy);
      const settings = { linear, chunkSize: 64, forced } as const;
      const { tokens } = await driver.generate(
        cases.map(({ prompt }) => prompt),
        48,
        settings,
      );
      let agreedCount = 0;
      let count = 0;
      let widestMissed = 0;
      for (const [i, { greedy, margins }] of cases.entries()) {
        for (const [j, token] of greedy.entries()) {
          count++;
          if (tokens[i]?.[j] === token) agreedCount++;
          else widestMissed = Math.max(widestMissed, margins?.[j] ?? 0);
        }
      }
      const share = ((100 * agreedCount) / count).toFixed(1);
      console.log(
        `${linear}: ${agreedCount} of ${count} golden tokens (${share} %), widest margin missed ${widestMissed}`,
      );
      expect(widestMissed).toBeLessThanOrEqual(1);
      expect(agreedCount / count).toBeGreaterThanOrEqual(0.94);
      driver.close();
    },
  );
}

for (const linear of linearVariantsFor(features).filter((id) => variantOf(id).kind === 'bf16')) {
  test.skipIf(readGolden('smollm2') === null)(
    `${linear} gives smollm2's golden tokens at 99.5 % or more of the positions where the reference does`,
    async () => {
      const opened = await openGolden('smollm2', 10, linear);
      if (opened === null) return;
      const { cases } = opened.golden;
      const forced = cases.map(({ greedy }) => greedy);
      const prompts = cases.map(({ prompt }) => prompt);
      const { tokens } = await opened.driver.generate(prompts, 48, { linear, chunkSize: 64, forced });
      const judged = cases.flatMap(({ greedy }, i) =>
        greedy.flatMap((token, j) =>
          (smollm2SecondBest[i] ?? []).includes(j) ? [] : [token === tokens[i]?.[j]],
        ),
      );
      const agreedCount = judged.filter(Boolean).length;
      console.log(`${linear}: ${agreedCount} of ${judged.length} tokens of the reference`);
      expect(agreedCount / judged.length).toBeGreaterThanOrEqual(0.995);
      opened.driver.close();
    },
  );
}
