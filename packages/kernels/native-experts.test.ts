/**
 * Mixture of experts against a slow float64 computation on odd shapes: models of one layer whose attention adds nothing, so
 * that a token's logits are its own, whatever stands before it. And the same bits in every company.
 */
import { afterAll, describe, expect, test } from 'vitest';
import type { LinearVariantId } from './catalogue.ts';
import { judgedVariants } from './judged-variants.fixture.ts';
import type { ExpertShape, LayerTensors, MlpTensors, ModelShape, TensorSource } from './model/model-shape.ts';
import { loadNative } from './native.ts';
import { RandomWeights } from './random-weights.fixture.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const variants = judgedVariants(native.probeMachine(1).features);
const HIDDEN = 80;
const VOCABULARY = 70;
const EPSILON = 1e-6;
/** Some tokens more than once. */
const tokenIds = Array.from({ length: 210 }, (_, index) => (index * 37) % VOCABULARY);

const plain: ExpertShape = {
  expertCount: 5,
  expertsPerToken: 3,
  intermediateSize: 40,
  sharedIntermediateSize: 0,
  scoring: 'softmax',
  groupCount: 1,
  groupsPerToken: 1,
  isNormalised: false,
  scale: 1,
};
const shapes: readonly [string, Partial<ExpertShape>][] = [
  ['three of five', {}],
  [
    'two of forty, of odd size',
    { expertCount: 40, expertsPerToken: 2, intermediateSize: 33, isNormalised: true },
  ],
  ['the only one', { expertCount: 1, expertsPerToken: 1, intermediateSize: 7 }],
  ['all of seven', { expertCount: 7, expertsPerToken: 7, isNormalised: true, scale: 3 }],
  [
    'four of twelve by sigmoids, from two groups of four, beside shared ones',
    {
      expertCount: 12,
      expertsPerToken: 4,
      sharedIntermediateSize: 50,
      scoring: 'sigmoid',
      groupCount: 4,
      groupsPerToken: 2,
      isNormalised: true,
      scale: 2.5,
    },
  ],
  [
    'one of six by sigmoids, groups of one',
    { expertCount: 6, expertsPerToken: 1, scoring: 'sigmoid', groupCount: 6, groupsPerToken: 3 },
  ],
];

const opened: { close(): void }[] = [];
afterAll(() => {
  for (const one of opened) one.close();
});

interface Model {
  readonly weights: RandomWeights;
  readonly shape: ModelShape;
  readonly experts: ExpertShape;
  readonly layer: LayerTensors;
  readonly embedding: TensorSource;
  readonly finalNorm: TensorSource;
  readonly head: TensorSource;
}

function randomModel(seed: number, changes: Partial<ExpertShape>, router?: Float32Array): Model {
  const weights = new RandomWeights(seed);
  opened.push(weights);
  const experts = { ...plain, ...changes };
  const mlp = (size: number): MlpTensors => ({
    gate: weights.matrix(size, HIDDEN),
    up: weights.matrix(size, HIDDEN),
    down: weights.matrix(HIDDEN, size),
  });
  const none = { gate: null, up: null, down: null };
  const embedding = weights.matrix(VOCABULARY, HIDDEN, 1);
  const layer: LayerTensors = {
    inputNorm: weights.vector(HIDDEN),
    q: weights.matrix(32, HIDDEN),
    k: weights.matrix(32, HIDDEN),
    v: weights.matrix(32, HIDDEN),
    o: weights.of(HIDDEN, 32, new Float32Array(HIDDEN * 32)),
    latent: null,
    ...{ qBias: null, kBias: null, vBias: null, qNorm: null, kNorm: null },
    postAttentionNorm: weights.vector(HIDDEN),
    ...(experts.sharedIntermediateSize > 0 ? mlp(experts.sharedIntermediateSize) : none),
    router:
      router === undefined
        ? weights.matrix(experts.expertCount, HIDDEN)
        : weights.of(experts.expertCount, HIDDEN, router),
    routerBias: experts.scoring === 'sigmoid' ? weights.vector(experts.expertCount, 0, 0.4) : null,
    experts: Array.from({ length: experts.expertCount }, () => mlp(experts.intermediateSize)),
  };
  const shape: ModelShape = {
    layerCount: 1,
    hiddenSize: HIDDEN,
    intermediateSize: 16,
    headCount: 1,
    kvHeadCount: 1,
    headSize: 32,
    vocabularySize: VOCABULARY,
    maxPositionCount: 256,
    rmsNormEpsilon: EPSILON,
    ropeInverseFrequencies: new Float32Array(16),
    ropeAttentionFactor: 1,
    windowTokens: new Int32Array(1),
    isRopeInterleaved: false,
    experts,
    latent: null,
  };
  const finalNorm = weights.vector(HIDDEN);
  return { weights, shape, experts, layer, embedding, finalNorm, head: weights.matrix(VOCABULARY, HIDDEN) };
}

async function openDriver(model: Model, linear: LinearVariantId, sequenceCount: number): Promise<StepDriver> {
  const { shape, embedding, layer, finalNorm, head } = model;
  const tensors = { embedding, layers: [layer], finalNorm, head };
  const options = { sequenceCount, tokensPerSequence: 224, threadCount: 3, blockSize: 16 };
  const driver = new StepDriver(native, { shape, tensors }, options);
  opened.push(driver);
  await driver.prepare(linear);
  return driver;
}

/** Indices of the `count` largest, the lower index first among equals. */
const largest = (values: readonly number[], count: number): number[] =>
  [...values.keys()].sort((a, b) => (values[b] ?? 0) - (values[a] ?? 0) || a - b).slice(0, count);
const sumOf = (values: readonly number[]): number => values.reduce((sum, value) => sum + value, 0);

/** Expert and weight, in float64. */
function route({ weights, layer, experts }: Model, x: readonly number[]): [number, number][] {
  if (layer.router === null) throw new Error('no router');
  const logits = weights.multiply(layer.router, x);
  const exponentials = logits.map(Math.exp);
  const scores =
    experts.scoring === 'sigmoid'
      ? logits.map((logit) => 1 / (1 + Math.exp(-logit)))
      : exponentials.map((value) => value / sumOf(exponentials));
  const bias = layer.routerBias === null ? null : weights.valuesOf(layer.routerBias);
  const choice = scores.map((score, index) => score + (bias?.[index] ?? 0));
  const size = experts.expertCount / experts.groupCount;
  const groupScores = Array.from({ length: experts.groupCount }, (_, group) => {
    const own = choice.slice(group * size, (group + 1) * size);
    return sumOf(largest(own, 2).map((index) => own[index] ?? 0));
  });
  const groups = new Set(largest(groupScores, experts.groupsPerToken));
  const open = choice.map((value, index) => (groups.has(Math.floor(index / size)) ? value : -1e9));
  const chosen = largest(open, experts.expertsPerToken);
  const total = experts.isNormalised ? sumOf(chosen.map((index) => scores[index] ?? 0)) : 1;
  return chosen.map((index) => [index, ((scores[index] ?? 0) / total) * experts.scale]);
}

function expectedLogits(model: Model, tokenId: number): { logits: number[]; chosen: number[] } {
  const { weights, layer } = model;
  const start = tokenId * HIDDEN;
  const hidden = [...weights.valuesOf(model.embedding).subarray(start, start + HIDDEN)];
  const x = weights.normalise(layer.postAttentionNorm, hidden, EPSILON);
  const pass = ({ gate, up, down }: MlpTensors, weight: number) => {
    const ups = weights.multiply(up, x);
    const gated = weights
      .multiply(gate, x)
      .map((value, index) => (value / (1 + Math.exp(-value))) * (ups[index] ?? 0));
    for (const [index, value] of weights.multiply(down, gated).entries()) {
      hidden[index] = (hidden[index] ?? 0) + weight * value;
    }
  };
  const { gate, up, down } = layer;
  if (gate !== null && up !== null && down !== null) pass({ gate, up, down }, 1);
  const routed = route(model, x);
  for (const [expert, weight] of routed) {
    const own = layer.experts[expert];
    if (own !== undefined) pass(own, weight);
  }
  const logits = weights.multiply(model.head, weights.normalise(model.finalNorm, hidden, EPSILON));
  return { logits, chosen: routed.map(([expert]) => expert) };
}

/** [tokens, vocabulary], each token a sequence of its own. */
async function logitsOf(
  driver: StepDriver,
  ids: readonly number[],
  linear: LinearVariantId,
  threadCount: number,
) {
  for (const sequence of ids.keys()) driver.rewind(sequence, 0);
  const chunks = ids.map((id, sequence) => ({ sequence, tokenIds: [id], isSampled: true }));
  const { logits } = await driver.step(chunks, { linear, threadCount, isLogitsWanted: true });
  return ids.map((_, index) =>
    (logits ?? new Float32Array()).slice(index * VOCABULARY, (index + 1) * VOCABULARY),
  );
}

describe.each(shapes)('%s', (name, changes) => {
  const model = randomModel(name.length, changes);
  const expected = Array.from({ length: VOCABULARY }, (_, id) => expectedLogits(model, id));
  const chosenCounts = Array.from(
    { length: model.experts.expertCount },
    (_, expert) => tokenIds.filter((id) => expected[id]?.chosen.includes(expert)).length,
  );

  test.each(variants)('%s gives every token what the slow computation gives', async (linear) => {
    const driver = await openDriver(model, linear, tokenIds.length);
    const logits = await logitsOf(driver, tokenIds, linear, 2);
    const tolerance = linear === 'linear.reference' ? 1e-5 : 0.05;
    for (const [index, id] of tokenIds.entries()) {
      const own = expected[id]?.logits ?? [];
      const most = Math.max(...own.map(Math.abs));
      const difference = Math.max(
        ...own.map((value, i) => Math.abs(value - (logits[index]?.[i] ?? Number.NaN))),
      );
      expect(difference / most).toBeLessThan(tolerance);
    }
    // The walk is worth its name: experts that have many tokens, and where there are many experts some with few or none.
    expect(Math.max(...chosenCounts)).toBeGreaterThan(20);
    if (model.experts.expertCount === 40) expect(Math.min(...chosenCounts)).toBeLessThan(5);
  });

  test.each(variants)(
    '%s gives the same bits alone, batched, chunked, on one to three threads',
    async (linear) => {
      const driver = await openDriver(model, linear, tokenIds.length);
      const alone = new Map<number, Float32Array>();
      for (const id of new Set(tokenIds)) {
        alone.set(id, (await logitsOf(driver, [id], linear, 1))[0] ?? new Float32Array());
      }
      for (const [count, threadCount] of [
        [210, 1],
        [210, 3],
        [29, 2],
        [2, 3],
      ] as const) {
        const ids = tokenIds.slice(0, count);
        expect(await logitsOf(driver, ids, linear, threadCount)).toEqual(ids.map((id) => alone.get(id)));
      }
      // One sequence in chunks: its attention adds nothing.
      driver.rewind(0, 0);
      for (let from = 0; from < tokenIds.length; from += 97) {
        const chunk = { sequence: 0, tokenIds: tokenIds.slice(from, from + 97), isSampled: true };
        const { logits } = await driver.step([chunk], { linear, isLogitsWanted: true });
        expect(logits).toEqual(alone.get(chunk.tokenIds.at(-1) ?? -1));
      }
    },
  );
});

test('among experts of equal score the lower one is chosen', async () => {
  const model = randomModel(3, { expertsPerToken: 1 }, new Float32Array(5 * HIDDEN));
  const driver = await openDriver(model, 'linear.reference', 1);
  const [logits] = await logitsOf(driver, [11], 'linear.reference', 1);
  const { logits: expected, chosen } = expectedLogits(model, 11);
  expect(chosen).toEqual([0]);
  for (const [index, value] of expected.entries()) expect(logits?.[index]).toBeCloseTo(value, 4);
});

test.each([Number.NaN, Number.POSITIVE_INFINITY])(
  'a router of %f ends the step with a sentence',
  async (value) => {
    const model = randomModel(4, {}, new Float32Array(5 * HIDDEN).fill(value));
    const driver = await openDriver(model, 'linear.reference', 1);
    await expect(logitsOf(driver, [1], 'linear.reference', 2)).rejects.toThrow(/not finite numbers/);
  },
);

describe('what does not fit is refused', () => {
  const model = randomModel(5, {});
  const openWith = (shape: Partial<ExpertShape>, layer: Partial<LayerTensors>) => () =>
    native.openModel(
      { ...model.shape, experts: { ...model.experts, ...shape } },
      { ...model, layers: [{ ...model.layer, ...layer }] },
      1,
    );
  const [first] = model.layer.experts;
  test.each([
    ['more experts than there are', openWith({ expertsPerToken: 6 }, {}), /expertsPerToken must be at most/],
    ['groups of unequal size', openWith({ groupCount: 2 }, {}), /multiple of groupCount/],
    ['an expert too few', openWith({}, { experts: model.layer.experts.slice(1) }), /as many as expertCount/],
    ['experts without a router', openWith({}, { router: null }), /experts: must be as many as expertCount/],
    ['an MLP that has no place', openWith({}, { ...first }), /gate: has no place in this layer/],
    [
      'a bias of another size',
      openWith({}, { routerBias: model.layer.inputNorm }),
      /routerBias .* needs \[1, 5\]/,
    ],
    ['a scale of 0', openWith({ scale: 0 }, {}), /scale must be/],
    ['another scoring', openWith({ scoring: 'tanh' as 'softmax' }, {}), /tanh is neither/],
  ])('%s', (_, open, sentence) => {
    expect(open).toThrow(sentence);
  });
});
