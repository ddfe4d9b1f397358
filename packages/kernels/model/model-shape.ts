/**
 * What the native side needs to know of a transformer (Llama, Mistral, Qwen2, Qwen3, mixtures of experts), and where its
 * tensors lie.
 * Produced by the model readers, consumed by native.ts. Plain numbers and strings; absent is null, never undefined.
 */

/** Floats, and GGUF's quantised blocks (native/dequantise.h draws them). */
export const tensorDtypes = [
  'F32',
  'F16',
  'BF16',
  'Q8_0',
  'Q4_0',
  'Q4_1',
  'Q5_0',
  'Q5_1',
  'Q4_K',
  'Q5_K',
  'Q6_K',
] as const;
export type TensorDtype = (typeof tensorDtypes)[number];

/** A tensor of shape [rows, columns] (row-major; a vector has one row) at `offset` of `file`, already checked to fit. */
export interface TensorSource {
  readonly file: string;
  readonly offset: number;
  readonly byteLength: number;
  readonly dtype: TensorDtype;
  readonly rows: number;
  readonly columns: number;
}

/** A gated MLP: gate and up [intermediate, hidden], down [hidden, intermediate]. */
export interface MlpTensors {
  readonly gate: TensorSource;
  readonly up: TensorSource;
  readonly down: TensorSource;
}

/** Names are Hugging Face's, without prefix. Vectors: norms [hidden], qNorm/kNorm [headSize], biases [rows of the weight]. */
export interface LayerTensors {
  readonly inputNorm: TensorSource;
  /** [headCount * headSize, hidden]; from a latent query [.., queryRank]. */
  readonly q: TensorSource;
  /** k, v: null where keys and values come from a latent. */
  readonly k: TensorSource | null;
  readonly v: TensorSource | null;
  /** [hidden, headCount * value size] */
  readonly o: TensorSource;
  readonly latent: LatentTensors | null;
  readonly qBias: TensorSource | null;
  readonly kBias: TensorSource | null;
  readonly vBias: TensorSource | null;
  readonly qNorm: TensorSource | null;
  readonly kNorm: TensorSource | null;
  readonly postAttentionNorm: TensorSource;
  /** What every token passes: in a layer with experts its shared experts as one MLP, null where it has none. */
  readonly gate: TensorSource | null;
  readonly up: TensorSource | null;
  readonly down: TensorSource | null;
  /** [expertCount, hidden]; null in a dense layer. */
  readonly router: TensorSource | null;
  /** [expertCount], added to the scores that choose, not to the weights of the chosen; null where there is none. */
  readonly routerBias: TensorSource | null;
  /** [expertCount], or empty in a dense layer. */
  readonly experts: readonly MlpTensors[];
}

/** What stands before and behind the latents of multi-head latent attention. */
export interface LatentTensors {
  /** [queryRank, hidden] and its norm; null where q takes the hidden state itself. */
  readonly queryDown: TensorSource | null;
  readonly queryNorm: TensorSource | null;
  /** [keyValueRank + ropeSize, hidden]: the latent, and the part of the key that is rotated and shared by all heads. */
  readonly keyValueDown: TensorSource;
  readonly keyValueNorm: TensorSource;
  /** [headCount * (headSize - ropeSize + valueHeadSize), keyValueRank]; of each head its key rows, then its value rows. */
  readonly keyValueUp: TensorSource;
}

export interface ModelTensors {
  readonly embedding: TensorSource;
  readonly layers: readonly LayerTensors[];
  readonly finalNorm: TensorSource;
  /** The LM head; the embedding itself where the model ties them. */
  readonly head: TensorSource;
}

/**
 * How a token's experts are chosen and weighed (native/expert_routing.h). Scores are a softmax over all experts or a
 * sigmoid of each; the chosen ones' scores are their weights.
 */
export interface ExpertShape {
  readonly expertCount: number;
  readonly expertsPerToken: number;
  readonly intermediateSize: number;
  /** Of the shared experts as one MLP; 0 where there are none. */
  readonly sharedIntermediateSize: number;
  readonly scoring: ExpertScoring;
  /** Experts lie in groups of equal size; only those of the best `groupsPerToken` groups are chosen from. 1 and 1: no groups. */
  readonly groupCount: number;
  readonly groupsPerToken: number;
  /** Whether the weights of a token's experts are divided by their sum. */
  readonly isNormalised: boolean;
  /** What the weights are multiplied by at last. */
  readonly scale: number;
}
export const expertScorings = ['softmax', 'sigmoid'] as const;
export type ExpertScoring = (typeof expertScorings)[number];

/**
 * Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434): keys and values of all heads are projected up from one latent
 * of `keyValueRank`; the last `ropeSize` elements of a head's query and key are rotated, and those of the key are one for all.
 */
export interface LatentShape {
  /** 0: queries are projected from the hidden state itself. */
  readonly queryRank: number;
  readonly keyValueRank: number;
  readonly ropeSize: number;
  readonly valueHeadSize: number;
  /** What scores are multiplied by beside 1 / sqrt(headSize); YaRN's, 1 elsewhere. */
  readonly scoreFactor: number;
  /** True: the cache holds latents. False: keys and values of every head, the slow, obvious form that judges the other. */
  readonly isAbsorbed: boolean;
}

export interface ModelShape {
  readonly layerCount: number;
  readonly hiddenSize: number;
  /** Of the MLP in dense layers. */
  readonly intermediateSize: number;
  readonly headCount: number;
  readonly kvHeadCount: number;
  readonly headSize: number;
  readonly vocabularySize: number;
  /** Most tokens of a sequence. */
  readonly maxPositionCount: number;
  readonly rmsNormEpsilon: number;
  /** Inverse rotary frequencies, [headSize / 2] (with latents [ropeSize / 2]), scaling already applied, computed in float64 and kept as float32. */
  readonly ropeInverseFrequencies: Float32Array;
  /** What cosines and sines are multiplied by (YaRN); 1 elsewhere. */
  readonly ropeAttentionFactor: number;
  /** By layer: how many keys a token attends to, its own among them; 0 is all of them. [layerCount] */
  readonly windowTokens: Int32Array;
  /** True where q and k rows come in GGUF's `llama` order: rotation pairs are (2i, 2i+1) instead of (i, i + headSize/2). */
  readonly isRopeInterleaved: boolean;
  /** null in a model without experts. */
  readonly experts: ExpertShape | null;
  /** null where every KV head has keys and values of its own; else headSize is that of queries and keys. */
  readonly latent: LatentShape | null;
}

/** What the KV cache holds of a token in one layer: heads, and elements of each one's key and value. */
export function cachedShapeOf({ kvHeadCount, headSize, latent }: ModelShape): CachedShape {
  if (latent === null) return { headCount: kvHeadCount, keySize: headSize, valueSize: headSize };
  const { isAbsorbed, keyValueRank, ropeSize, valueHeadSize } = latent;
  return isAbsorbed
    ? { headCount: 1, keySize: 2 * Math.ceil((keyValueRank + ropeSize) / 2), valueSize: keyValueRank }
    : { headCount: kvHeadCount, keySize: headSize, valueSize: valueHeadSize };
}
export interface CachedShape {
  readonly headCount: number;
  readonly keySize: number;
  readonly valueSize: number;
}
