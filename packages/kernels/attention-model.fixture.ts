/**
 * A model of attention heads in any shape, its weights drawn anew from a seed: shapes that no published model of a handy
 * size has. Used by native-attention.test.ts; its words mean nothing.
 */
import type { LoadedModel } from './model/loaded-model.ts';
import type { LayerTensors } from './model/model-shape.ts';
import { RandomWeights } from './random-weights.fixture.ts';

export interface AttentionShape {
  readonly headCount: number;
  readonly kvHeadCount: number;
  readonly headSize: number;
  /** One for each layer; 0 is all of the context. */
  readonly windowTokens: readonly number[];
}

const HIDDEN = 96;
const INTERMEDIATE = 160;
const VOCABULARY = 211;

/** `close` the weights when the model is. */
export function attentionModel(
  shape: AttentionShape,
  seed: number,
): { model: LoadedModel; close: () => void } {
  const weights = new RandomWeights(seed);
  const { headCount, kvHeadCount, headSize, windowTokens } = shape;
  const matrix = (rows: number, columns: number, scale: number) => weights.matrix(rows, columns, scale);
  const layer = (): LayerTensors => ({
    inputNorm: weights.vector(HIDDEN),
    // Queries and keys large enough for weights that are far from equal.
    q: matrix(headCount * headSize, HIDDEN, 0.4),
    k: matrix(kvHeadCount * headSize, HIDDEN, 0.4),
    v: matrix(kvHeadCount * headSize, HIDDEN, 0.2),
    o: matrix(HIDDEN, headCount * headSize, 0.2),
    qBias: null,
    kBias: null,
    vBias: null,
    qNorm: null,
    kNorm: null,
    postAttentionNorm: weights.vector(HIDDEN),
    gate: matrix(INTERMEDIATE, HIDDEN, 0.15),
    up: matrix(INTERMEDIATE, HIDDEN, 0.15),
    down: matrix(HIDDEN, INTERMEDIATE, 0.15),
    router: null,
    routerBias: null,
    experts: [],
    latent: null,
  });
  const model: LoadedModel = {
    modelId: 'random',
    modelHash: '0123456789abcdef',
    architecture: 'llama',
    shape: {
      layerCount: windowTokens.length,
      hiddenSize: HIDDEN,
      intermediateSize: INTERMEDIATE,
      headCount,
      kvHeadCount,
      headSize,
      vocabularySize: VOCABULARY,
      maxPositionCount: 4096,
      rmsNormEpsilon: 1e-5,
      ropeInverseFrequencies: Float32Array.from(
        { length: headSize / 2 },
        (_, i) => 1e4 ** ((-2 * i) / headSize),
      ),
      ropeAttentionFactor: 1,
      windowTokens: Int32Array.from(windowTokens),
      isRopeInterleaved: false,
      experts: null,
      latent: null,
    },
    tensors: {
      embedding: matrix(VOCABULARY, HIDDEN, 1),
      layers: windowTokens.map(layer),
      finalNorm: weights.vector(HIDDEN),
      head: matrix(VOCABULARY, HIDDEN, 0.3),
    },
    tokenizer: {
      file: '',
      tokenizerJson: {},
      tokenizerConfig: {},
      chatTemplate: null,
      bosTokenId: null,
      eosTokenIds: [],
    },
    generation: { temperature: null, topP: null, topK: null },
  };
  return { model, close: () => weights.close() };
}
