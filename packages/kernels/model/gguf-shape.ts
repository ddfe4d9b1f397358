/**
 * The shape of a model from a GGUF file's metadata, whose keys begin with the architecture's name. Called by
 * gguf-model.ts. Absent keys mean what they mean in llama.cpp. Refuses by name what would compute something else.
 */
import { open } from 'node:fs/promises';
import { checkedExperts, MOST_EXPERTS } from './expert-shape.ts';
import type { GgufMetadata } from './gguf-metadata.ts';
import { ModelError } from './model-error.ts';
import type { ExpertShape, ModelShape } from './model-shape.ts';
import { checkRope, type RopeScaling, ropeInverseFrequencies, yarnAttentionFactor } from './rope.ts';
import type { TensorTable } from './tensor-table.ts';

/** As the native side has them. */
const MOST_HEADS = 4096;
const MOST_HEAD_SIZE = 1024;
const ROPE_DIVISORS = 'rope_freqs.weight';

export type GgufArchitecture = 'llama' | 'qwen2' | 'qwen3' | 'qwen3moe';

/** @throws ModelError */
export async function readGgufShape(
  metadata: GgufMetadata,
  architecture: GgufArchitecture,
  table: TensorTable,
  vocabularySize: number,
): Promise<ModelShape> {
  const { file } = metadata;
  const of = (key: string): string => `${architecture}.${key}`;
  const hiddenSize = metadata.neededCount(of('embedding_length'), 1_000_000);
  const headCount = metadata.neededCount(of('attention.head_count'), MOST_HEADS);
  const kvHeadCount = metadata.count(of('attention.head_count_kv'), MOST_HEADS) ?? headCount;
  if (kvHeadCount === 0 || headCount % kvHeadCount !== 0) {
    throw new ModelError(file, `${headCount} attention heads cannot share ${kvHeadCount} key/value heads.`);
  }
  const headSize = metadata.count(of('attention.key_length'), MOST_HEAD_SIZE) ?? hiddenSize / headCount;
  if (!Number.isInteger(headSize) || headSize === 0 || headSize % 2 !== 0 || headSize > MOST_HEAD_SIZE) {
    throw new ModelError(
      file,
      `a head size of ${headSize} is not an even whole number up to ${MOST_HEAD_SIZE}.`,
    );
  }
  for (const key of [of('attention.value_length'), of('rope.dimension_count')]) {
    const size = metadata.count(key, MOST_HEAD_SIZE);
    if (size !== null && size !== headSize) {
      throw new ModelError(file, `${key} is ${size}; only the head size, ${headSize}, is computed.`);
    }
  }
  const epsilonKey = of('attention.layer_norm_rms_epsilon');
  const rmsNormEpsilon = metadata.positive(epsilonKey);
  if (rmsNormEpsilon === null) throw new ModelError(file, `${epsilonKey} is missing.`);
  if (rmsNormEpsilon < 1e-30 || rmsNormEpsilon >= 1) {
    throw new ModelError(file, `${epsilonKey} is ${rmsNormEpsilon}, not between 1e-30 and 1.`);
  }
  const layerCount = metadata.neededCount(of('block_count'), 1_000);
  const maxPositionCount = metadata.neededCount(of('context_length'), 100_000_000);
  const theta = metadata.positive(of('rope.freq_base')) ?? 10_000;
  if (theta === 1) throw new ModelError(file, `${of('rope.freq_base')} is 1, which turns every pair alike.`);
  const scaling = await readScaling(metadata, architecture, table, headSize, maxPositionCount);
  const attentionFactor = metadata.positive(of('rope.scaling.attn_factor')) ?? 1;
  const rope = {
    ropeInverseFrequencies: ropeInverseFrequencies(headSize, theta, scaling),
    ropeAttentionFactor:
      attentionFactor * (scaling.kind === 'yarn' ? yarnAttentionFactor(scaling.factor) : 1),
  };
  checkRope(file, rope);
  return {
    layerCount,
    hiddenSize,
    intermediateSize: readIntermediateSize(metadata, architecture),
    headCount,
    kvHeadCount,
    headSize,
    vocabularySize,
    maxPositionCount,
    rmsNormEpsilon,
    ...rope,
    windowTokens: new Int32Array(layerCount).fill(
      metadata.count(of('attention.sliding_window'), 100_000_000) ?? 0,
    ),
    isRopeInterleaved: architecture === 'llama',
    experts: readExperts(metadata, architecture),
    latent: null,
  };
}

/** A mixture of experts need not say how large the MLP of its dense layers would be: it has none. */
function readIntermediateSize(metadata: GgufMetadata, architecture: GgufArchitecture): number {
  const key = `${architecture}.feed_forward_length`;
  return architecture === 'qwen3moe'
    ? metadata.count(key, 4_000_000) || 1
    : metadata.neededCount(key, 4_000_000);
}

/** Softmax over all experts and the best few normalised, as llama.cpp computes Qwen3-MoE; null in a dense model. */
function readExperts(metadata: GgufMetadata, architecture: GgufArchitecture): ExpertShape | null {
  const { file } = metadata;
  const of = (key: string): string => `${architecture}.${key}`;
  if (architecture !== 'qwen3moe') {
    if ((metadata.count(of('expert_count'), 65_535) ?? 0) === 0) return null;
    throw new ModelError(file, `it is a mixture of experts, which of "${architecture}" is not computed.`);
  }
  const neutral = { expert_shared_count: 0, expert_group_count: 1, expert_gating_func: 1 };
  for (const [key, value] of Object.entries(neutral)) {
    const given = metadata.count(of(key), 65_535);
    if (given !== null && given !== value && given !== 0) {
      throw new ModelError(file, `${of(key)} is ${given}; only ${value} is computed.`);
    }
  }
  const scale = metadata.positive(of('expert_weights_scale'));
  if (scale !== null && scale !== 1) {
    throw new ModelError(file, `${of('expert_weights_scale')} is ${scale}; only 1 is computed.`);
  }
  if (metadata.isTrue(of('expert_weights_norm')) === false) {
    throw new ModelError(
      file,
      `${of('expert_weights_norm')} is false; only normalised weights are computed.`,
    );
  }
  return checkedExperts(file, {
    expertCount: metadata.neededCount(of('expert_count'), MOST_EXPERTS),
    expertsPerToken: metadata.neededCount(of('expert_used_count'), MOST_EXPERTS),
    intermediateSize: metadata.neededCount(of('expert_feed_forward_length'), 4_000_000),
    sharedIntermediateSize: 0,
    scoring: 'softmax',
    groupCount: 1,
    groupsPerToken: 1,
    isNormalised: true,
    scale: 1,
  });
}

async function readScaling(
  metadata: GgufMetadata,
  architecture: GgufArchitecture,
  table: TensorTable,
  headSize: number,
  maxPositionCount: number,
): Promise<RopeScaling> {
  const { file } = metadata;
  const of = (key: string): string => `${architecture}.rope.${key}`;
  const kind = metadata.text(of('scaling.type')) ?? 'none';
  if (kind !== 'none' && kind !== 'linear' && kind !== 'yarn') {
    throw new ModelError(file, `the rope scaling "${kind}" is not computed; none, linear and yarn are.`);
  }
  const oldFactor = metadata.positive(of('scale_linear'));
  const factor = metadata.positive(of('scaling.factor')) ?? oldFactor ?? 1;
  if (kind === 'yarn') {
    if (table.has(ROPE_DIVISORS)) {
      throw new ModelError(file, `it scales its rope twice, by ${ROPE_DIVISORS} and by yarn.`);
    }
    for (const key of ['scaling.yarn_ext_factor', 'scaling.yarn_attn_factor']) {
      const value = metadata.positive(of(key));
      if (value !== null && value !== 1)
        throw new ModelError(file, `${of(key)} is ${value}; only 1 is computed.`);
    }
    return {
      kind,
      factor,
      betaFast: metadata.positive(of('scaling.yarn_beta_fast')) ?? 32,
      betaSlow: metadata.positive(of('scaling.yarn_beta_slow')) ?? 1,
      originalMaxPositionCount:
        metadata.count(of('scaling.original_context_length'), 100_000_000) || maxPositionCount,
      isTruncated: true,
    };
  }
  const isLinear = (kind === 'linear' || oldFactor !== null) && factor !== 1;
  if (!table.has(ROPE_DIVISORS)) return isLinear ? { kind: 'linear', factor } : { kind: 'none' };
  if (isLinear) throw new ModelError(file, `it scales its rope twice, by ${ROPE_DIVISORS} and by ${factor}.`);

  const source = table.vector(ROPE_DIVISORS, headSize / 2);
  if (source.dtype !== 'F32') throw new ModelError(file, `${ROPE_DIVISORS} is not of type F32.`);
  const handle = await open(source.file, 'r');
  try {
    const { buffer } = await handle.read(
      Buffer.alloc(source.byteLength),
      0,
      source.byteLength,
      source.offset,
    );
    const divisors = Array.from({ length: source.columns }, (_, index) => buffer.readFloatLE(index * 4));
    if (!divisors.every((divisor) => Number.isFinite(divisor) && divisor > 0)) {
      throw new ModelError(file, `${ROPE_DIVISORS} holds numbers that cannot divide.`);
    }
    return { kind: 'divisors', divisors };
  } finally {
    await handle.close();
  }
}
