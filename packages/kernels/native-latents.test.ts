/**
 * Multi-head latent attention against a slow float64 computation on odd shapes: models of one layer whose MLP adds nothing.
 * And the same bits in every company.
 */
import { afterAll, describe, expect, test } from 'vitest';
import type { AttentionVariantId, LinearVariantId } from './catalogue.ts';
import { judgedVariants } from './judged-variants.fixture.ts';
import type {
  LatentShape,
  LatentTensors,
  LayerTensors,
  ModelShape,
  TensorSource,
} from './model/model-shape.ts';
import { loadNative } from './native.ts';
import { RandomWeights } from './random-weights.fixture.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const variants = judgedVariants(native.probeMachine(1).features);
const HIDDEN = 72;
const VOCABULARY = 50;
const EPSILON = 1e-6;
const prompt = Array.from({ length: 75 }, (_, index) => (index * 31) % VOCABULARY);

interface Case extends Omit<LatentShape, 'isAbsorbed'> {
  readonly headCount: number;
  /** Of a key beside what is rotated. */
  readonly ownSize: number;
  readonly isRopeInterleaved: boolean;
}
const cases: readonly [string, Case][] = [
  [
    'values smaller than keys, interleaved',
    {
      ...{ headCount: 4, ownSize: 32, isRopeInterleaved: true },
      ...{ queryRank: 48, keyValueRank: 32, ropeSize: 16, valueHeadSize: 32, scoreFactor: 1 },
    },
  ],
  [
    'values larger than keys, odd ranks, scores scaled',
    {
      ...{ headCount: 3, ownSize: 6, isRopeInterleaved: false },
      ...{ queryRank: 7, keyValueRank: 9, ropeSize: 4, valueHeadSize: 21, scoreFactor: 1.6 },
    },
  ],
  [
    'one head, queries without a latent',
    {
      ...{ headCount: 1, ownSize: 2, isRopeInterleaved: true },
      ...{ queryRank: 0, keyValueRank: 70, ropeSize: 6, valueHeadSize: 1, scoreFactor: 1 },
    },
  ],
];

const opened: { close(): void }[] = [];
afterAll(() => {
  for (const one of opened) one.close();
});

interface Model {
  readonly weights: RandomWeights;
  readonly shape: ModelShape;
  readonly latent: LatentShape;
  readonly layer: LayerTensors & { readonly latent: LatentTensors };
  readonly embedding: TensorSource;
  readonly finalNorm: TensorSource;
  readonly head: TensorSource;
}

function randomModel(seed: number, shapeOf: Case, isAbsorbed: boolean): Model {
  const { headCount, ownSize, isRopeInterleaved, ...sizes } = shapeOf;
  const latent = { ...sizes, isAbsorbed };
  const weights = new RandomWeights(seed);
  opened.push(weights);
  const { queryRank, keyValueRank, ropeSize, valueHeadSize } = latent;
  const headSize = ownSize + ropeSize;
  const embedding = weights.matrix(VOCABULARY, HIDDEN, 1);
  const layer = {
    inputNorm: weights.vector(HIDDEN),
    q: weights.matrix(headCount * headSize, queryRank || HIDDEN, 2 * Math.sqrt(3 / (queryRank || HIDDEN))),
    o: weights.matrix(HIDDEN, headCount * valueHeadSize),
    latent: {
      queryDown: queryRank > 0 ? weights.matrix(queryRank, HIDDEN) : null,
      queryNorm: queryRank > 0 ? weights.vector(queryRank) : null,
      keyValueDown: weights.matrix(keyValueRank + ropeSize, HIDDEN),
      keyValueNorm: weights.vector(keyValueRank),
      keyValueUp: weights.matrix(headCount * (ownSize + valueHeadSize), keyValueRank),
    },
    ...{ k: null, v: null, qBias: null, kBias: null, vBias: null, qNorm: null, kNorm: null },
    postAttentionNorm: weights.vector(HIDDEN),
    gate: weights.matrix(32, HIDDEN),
    up: weights.matrix(32, HIDDEN),
    down: weights.of(HIDDEN, 32, new Float32Array(HIDDEN * 32)),
    ...{ router: null, routerBias: null, experts: [] },
  };
  const shape: ModelShape = {
    layerCount: 1,
    hiddenSize: HIDDEN,
    intermediateSize: 32,
    headCount,
    kvHeadCount: headCount,
    headSize,
    vocabularySize: VOCABULARY,
    maxPositionCount: 1024,
    rmsNormEpsilon: EPSILON,
    ropeInverseFrequencies: Float32Array.from({ length: ropeSize / 2 }, (_, pair) => 1 / (1 + pair)),
    ropeAttentionFactor: 1,
    windowTokens: new Int32Array(1),
    isRopeInterleaved,
    experts: null,
    latent,
  };
  const finalNorm = weights.vector(HIDDEN);
  return { weights, shape, latent, layer, embedding, finalNorm, head: weights.matrix(VOCABULARY, HIDDEN) };
}

function rotated({ shape }: Model, part: readonly number[], position: number): number[] {
  const out = [...part];
  const half = part.length / 2;
  for (let pair = 0; pair < half; pair += 1) {
    const [first, second] = shape.isRopeInterleaved ? [2 * pair, 2 * pair + 1] : [pair, pair + half];
    const angle = position * (shape.ropeInverseFrequencies[pair] ?? 0);
    const [x, y] = [part[first] ?? 0, part[second] ?? 0];
    out[first] = x * Math.cos(angle) - y * Math.sin(angle);
    out[second] = y * Math.cos(angle) + x * Math.sin(angle);
  }
  return out;
}

const dot = (a: readonly number[], b: readonly number[]): number =>
  a.reduce((sum, value, index) => sum + value * (b[index] ?? Number.NaN), 0);

/** Logits behind the prompt's last token, in float64. */
function expectedLogits(model: Model): number[] {
  const { weights, shape, latent, layer } = model;
  const { queryDown, queryNorm, keyValueDown, keyValueNorm, keyValueUp } = layer.latent;
  const ownSize = shape.headSize - latent.ropeSize;
  const upSize = ownSize + latent.valueHeadSize;
  const inputs = prompt.map((id) =>
    weights.normalise(
      layer.inputNorm,
      [...weights.valuesOf(model.embedding).subarray(id * HIDDEN, (id + 1) * HIDDEN)],
      EPSILON,
    ),
  );
  const keysAndValues = inputs.map((x, position) => {
    const down = weights.multiply(keyValueDown, x);
    const shared = rotated(model, down.slice(latent.keyValueRank), position);
    const up = weights.multiply(
      keyValueUp,
      weights.normalise(keyValueNorm, down.slice(0, latent.keyValueRank), 1e-6),
    );
    return Array.from({ length: shape.headCount }, (_, head) => {
      const own = up.slice(head * upSize, (head + 1) * upSize);
      return { key: [...own.slice(0, ownSize), ...shared], value: own.slice(ownSize) };
    });
  });
  const last = prompt.length - 1;
  const x = inputs[last] ?? [];
  const from =
    queryDown === null || queryNorm === null
      ? x
      : weights.normalise(queryNorm, weights.multiply(queryDown, x), 1e-6);
  const queries = weights.multiply(layer.q, from);
  const attended = Array.from({ length: shape.headCount }, (_, head) => {
    const query = queries.slice(head * shape.headSize, (head + 1) * shape.headSize);
    const turned = [...query.slice(0, ownSize), ...rotated(model, query.slice(ownSize), last)];
    const scores = keysAndValues.map(
      (heads) => (dot(turned, heads[head]?.key ?? []) * latent.scoreFactor) / Math.sqrt(shape.headSize),
    );
    const most = Math.max(...scores);
    const shares = scores.map((score) => Math.exp(score - most));
    const total = shares.reduce((sum, share) => sum + share, 0);
    return Array.from(
      { length: latent.valueHeadSize },
      (_, d) =>
        dot(
          shares,
          keysAndValues.map((heads) => heads[head]?.value[d] ?? Number.NaN),
        ) / total,
    );
  }).flat();
  const added = weights.multiply(layer.o, attended);
  const start = (prompt[last] ?? 0) * HIDDEN;
  const hidden = added.map((value, index) => value + (weights.valuesOf(model.embedding)[start + index] ?? 0));
  return weights.multiply(model.head, weights.normalise(model.finalNorm, hidden, EPSILON));
}

async function openDriver(
  model: Model,
  linear: LinearVariantId,
  blockSize: number,
  attention: AttentionVariantId = 'attention.reference',
): Promise<StepDriver> {
  const { shape, embedding, layer, finalNorm, head } = model;
  const tensors = { embedding, layers: [layer], finalNorm, head };
  const options = { sequenceCount: 4, tokensPerSequence: 640, threadCount: 3, blockSize, attention };
  const driver = new StepDriver(native, { shape, tensors }, options);
  opened.push(driver);
  await driver.prepare(linear);
  return driver;
}

/** Largest difference over the largest logit. */
function relativeDifference(logits: Float32Array | undefined, expected: readonly number[]): number {
  const most = Math.max(...expected.map(Math.abs));
  return (
    Math.max(...expected.map((value, index) => Math.abs(value - (logits?.[index] ?? Number.NaN)))) / most
  );
}

const lastLogits = async (
  driver: StepDriver,
  linear: LinearVariantId,
  chunkSize: number,
  sequenceCount: number,
  threadCount: number,
  tokenIds = prompt,
) => {
  for (let sequence = 0; sequence < 4; sequence += 1) driver.rewind(sequence, 0);
  const prompts = Array.from({ length: sequenceCount }, () => tokenIds);
  return (await driver.generate(prompts, 1, { linear, chunkSize, threadCount, isLogitsWanted: true })).logits;
};

describe.each(
  cases.flatMap(([name, shape]) => [[name, 'expanded', shape] as const, [name, 'absorbed', shape] as const]),
)('%s, %s', (name, form, shape) => {
  const model = randomModel(name.length, shape, form === 'absorbed');

  test.each(variants)('%s gives what the slow computation gives', async (linear) => {
    const driver = await openDriver(model, linear, 16);
    const [logits] = await lastLogits(driver, linear, 512, 1, 2);
    const difference = relativeDifference(logits, expectedLogits(model));
    expect(difference).toBeLessThan(linear === 'linear.reference' ? 1e-5 : 0.06);
  });

  test.each([
    ['attention.float32', 1e-4],
    ['attention.bf16', 0.03],
    ['attention.int8', 0.12],
  ] as const)('%s is as near as its format is', async (attention, tolerance) => {
    const linear = 'linear.reference';
    const driver = await openDriver(model, linear, 16, attention);
    const [alone] = await lastLogits(driver, linear, 512, 1, 1);
    expect(relativeDifference(alone, expectedLogits(model))).toBeLessThan(tolerance);
    expect(await lastLogits(driver, linear, 7, 3, 3)).toEqual([alone, alone, alone]);
  });

  test('a cache that changes its format keeps what it holds, as nearly as the formats do', async () => {
    const linear = 'linear.reference';
    const driver = await openDriver(model, linear, 16, 'attention.float32');
    const blockIds = Int32Array.from({ length: Math.ceil(prompt.length / 16) }, (_, block) => block);
    await driver.step([{ sequence: 0, tokenIds: prompt.slice(0, -1), isSampled: false }], { linear });
    for (const [format, tolerance] of [
      ['bf16', 0.03],
      ['int8', 0.12],
      ['float32', 0.12],
    ] as const) {
      await native.convertKvCache(driver.model, driver.kvCache, format, blockIds);
      driver.attention = `attention.${format}`;
      driver.rewind(0, prompt.length - 1);
      const last = { sequence: 0, tokenIds: prompt.slice(-1), isSampled: true };
      const { logits } = await driver.step([last], { linear, isLogitsWanted: true });
      expect(relativeDifference(logits ?? undefined, expectedLogits(model))).toBeLessThan(tolerance);
    }
  });

  test('a context of several splits is attended to as the reference does', async () => {
    const linear = 'linear.reference';
    const long = Array.from({ length: 600 }, (_, index) => (index * index + 3 * index) % VOCABULARY);
    const [reference] = await lastLogits(await openDriver(model, linear, 16), linear, 512, 1, 2, long);
    const driver = await openDriver(model, linear, 16, 'attention.float32');
    for (const threadCount of [1, 3]) {
      const [logits] = await lastLogits(driver, linear, 512, 1, threadCount, long);
      expect(relativeDifference(logits, [...(reference ?? [])])).toBeLessThan(1e-4);
    }
  });

  test.each(variants)('%s gives the same bits batched, chunked, on one to three threads', async (linear) => {
    const driver = await openDriver(model, linear, 5);
    const [alone] = await lastLogits(driver, linear, 512, 1, 1);
    for (const [chunkSize, sequenceCount, threadCount] of [
      [1, 2, 2],
      [7, 4, 3],
      [33, 3, 1],
    ] as const) {
      const logits = await lastLogits(driver, linear, chunkSize, sequenceCount, threadCount);
      expect(logits).toEqual(Array.from({ length: sequenceCount }, () => alone));
    }
  });
});

describe('what does not fit is refused', () => {
  const model = randomModel(5, cases[0]?.[1] ?? (null as never), true);
  const openWith =
    (shape: Partial<ModelShape>, latent: Partial<LatentShape>, own: Partial<LatentTensors>) => () =>
      native.openModel(
        { ...model.shape, ...shape, latent: { ...model.latent, ...latent } },
        { ...model, layers: [{ ...model.layer, latent: { ...model.layer.latent, ...own } }] },
        1,
      );
  const { keyValueDown } = model.layer.latent;
  test.each([
    ['KV heads in groups', openWith({ kvHeadCount: 2 }, {}, {}), /kvHeadCount must be headCount/],
    ['a head that is all rotated', openWith({}, { ropeSize: 48 }, {}), /rotated pair|below headSize/],
    ['another rank', openWith({}, { keyValueRank: 31 }, {}), /keyValueDown .* needs \[47, 72\]/],
    ['another value size', openWith({}, { valueHeadSize: 31 }, {}), /o in .* needs \[72, 124\]/],
    ['no query latent', openWith({}, {}, { queryDown: null }), /file|queryDown/],
    [
      'a matrix for another',
      openWith({}, {}, { keyValueUp: keyValueDown }),
      /keyValueUp .* needs \[256, 32\]/,
    ],
    ['a score factor of 0', openWith({}, { scoreFactor: 0 }, {}), /scoreFactor must be/],
  ])('%s', (_, open, sentence) => {
    expect(open).toThrow(sentence);
  });
});
