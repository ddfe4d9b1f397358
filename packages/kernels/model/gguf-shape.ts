/**
 * The shape of a dense model from a GGUF file's metadata, whose keys begin with the architecture's name. Called by
 * gguf-model.ts. Absent keys mean what they mean in llama.cpp. Refuses by name what would compute something else.
 */
import { open } from 'node:fs/promises';
import type { GgufMetadata } from './gguf-metadata.ts';
import { ModelError } from './model-error.ts';
import type { ModelShape } from './model-shape.ts';
import { checkRope, type RopeScaling, ropeInverseFrequencies, yarnAttentionFactor } from './rope.ts';
import type { TensorTable } from './tensor-table.ts';

/** As the native side has them. */
const MOST_HEADS = 4096;
const MOST_HEAD_SIZE = 4096;
const ROPE_DIVISORS = 'rope_freqs.weight';

export type GgufArchitecture = 'llama' | 'qwen2' | 'qwen3';

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
    intermediateSize: metadata.neededCount(of('feed_forward_length'), 4_000_000),
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
    experts: null,
  };
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
