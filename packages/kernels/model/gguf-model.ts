/**
 * A GGUF file of the `llama` architecture -> LoadedModel. Called by load-model.ts. The converter that writes such files
 * permutes the rows of q and k into pairs (2i, 2i+1), which `isRopeInterleaved` tells the native side.
 * Refuses other architectures, mixtures of experts, split files and rope scalings by name.
 */
import { open } from 'node:fs/promises';
import { basename } from 'node:path';
import { readGguf } from './gguf-file.ts';
import { GgufMetadata } from './gguf-metadata.ts';
import { readGgufTokenizer } from './gguf-tokenizer.ts';
import type { LoadedModel } from './loaded-model.ts';
import { ModelError } from './model-error.ts';
import { modelHash } from './model-hash.ts';
import type { LayerTensors, ModelShape, ModelTensors } from './model-shape.ts';
import { type RopeScaling, ropeInverseFrequencies } from './rope.ts';
import { TensorTable } from './tensor-table.ts';

const ROPE_DIVISORS = 'rope_freqs.weight';

export async function loadGguf(file: string): Promise<LoadedModel> {
  const { metadata: values, tensors: stored } = readGguf(file);
  const metadata = new GgufMetadata(file, values);
  refuseOtherKinds(metadata);
  const tokenizer = readGgufTokenizer(metadata);
  const table = new TensorTable(file, stored);
  const vocabularySize = metadata.texts('tokenizer.ggml.tokens')?.length ?? 0;
  const shape = await readShape(metadata, table, vocabularySize);
  const tensors = takeTensors(table, shape);
  return {
    modelId: basename(file).replace(/\.gguf$/i, ''),
    modelHash: await modelHash('llama', shape, tensors),
    architecture: 'llama',
    shape,
    tensors,
    tokenizer,
    generation: { temperature: null, topP: null, topK: null },
  };
}

function refuseOtherKinds(metadata: GgufMetadata): void {
  const architecture = metadata.text('general.architecture');
  if (architecture !== 'llama') {
    throw new ModelError(
      metadata.file,
      `its architecture is "${architecture}"; of GGUF files, "llama" is read.`,
    );
  }
  if ((metadata.count('split.count', 65_535) ?? 1) > 1) {
    throw new ModelError(metadata.file, 'it is one part of a split model; merge the parts first.');
  }
  if ((metadata.count('llama.expert_count', 65_535) ?? 0) > 0) {
    throw new ModelError(metadata.file, 'it is a mixture of experts, which is not computed.');
  }
}

async function readShape(
  metadata: GgufMetadata,
  table: TensorTable,
  vocabularySize: number,
): Promise<ModelShape> {
  const { file } = metadata;
  const hiddenSize = metadata.neededCount('llama.embedding_length', 1_000_000);
  const headCount = metadata.neededCount('llama.attention.head_count', 10_000);
  const kvHeadCount = metadata.count('llama.attention.head_count_kv', 10_000) ?? headCount;
  if (kvHeadCount === 0 || headCount % kvHeadCount !== 0) {
    throw new ModelError(file, `${headCount} attention heads cannot share ${kvHeadCount} key/value heads.`);
  }
  const headSize = metadata.count('llama.attention.key_length', 10_000) ?? hiddenSize / headCount;
  if (!Number.isInteger(headSize) || headSize === 0 || headSize % 2 !== 0) {
    throw new ModelError(file, `a head size of ${headSize} is not an even whole number.`);
  }
  for (const key of ['llama.attention.value_length', 'llama.rope.dimension_count']) {
    const size = metadata.count(key, 10_000);
    if (size !== null && size !== headSize) {
      throw new ModelError(file, `${key} is ${size}; only the head size, ${headSize}, is computed.`);
    }
  }
  const rmsNormEpsilon = metadata.positive('llama.attention.layer_norm_rms_epsilon');
  if (rmsNormEpsilon === null) {
    throw new ModelError(file, 'llama.attention.layer_norm_rms_epsilon is missing.');
  }
  const theta = metadata.positive('llama.rope.freq_base') ?? 10_000;
  return {
    layerCount: metadata.neededCount('llama.block_count', 1_000),
    hiddenSize,
    intermediateSize: metadata.neededCount('llama.feed_forward_length', 4_000_000),
    headCount,
    kvHeadCount,
    headSize,
    vocabularySize,
    maxPositionCount: metadata.neededCount('llama.context_length', 100_000_000),
    rmsNormEpsilon,
    ropeInverseFrequencies: ropeInverseFrequencies(
      headSize,
      theta,
      await readScaling(metadata, table, headSize),
    ),
    isRopeInterleaved: true,
  };
}

async function readScaling(
  metadata: GgufMetadata,
  table: TensorTable,
  headSize: number,
): Promise<RopeScaling> {
  const kind = metadata.text('llama.rope.scaling.type') ?? 'none';
  if (kind !== 'none' && kind !== 'linear') {
    throw new ModelError(metadata.file, `the rope scaling "${kind}" is not computed; none and linear are.`);
  }
  const oldFactor = metadata.positive('llama.rope.scale_linear');
  const factor = metadata.positive('llama.rope.scaling.factor') ?? oldFactor ?? 1;
  const isLinear = (kind === 'linear' || oldFactor !== null) && factor !== 1;
  if (!table.has(ROPE_DIVISORS)) return isLinear ? { kind: 'linear', factor } : { kind: 'none' };
  if (isLinear)
    throw new ModelError(metadata.file, `it scales its rope twice, by ${ROPE_DIVISORS} and by ${factor}.`);

  const source = table.vector(ROPE_DIVISORS, headSize / 2);
  if (source.dtype !== 'F32') throw new ModelError(metadata.file, `${ROPE_DIVISORS} is not of type F32.`);
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
      throw new ModelError(metadata.file, `${ROPE_DIVISORS} holds numbers that cannot divide.`);
    }
    return { kind: 'divisors', divisors };
  } finally {
    await handle.close();
  }
}

function takeTensors(table: TensorTable, shape: ModelShape): ModelTensors {
  const { hiddenSize, intermediateSize, headCount, kvHeadCount, headSize, vocabularySize } = shape;
  const [queryRows, kvRows] = [headCount * headSize, kvHeadCount * headSize];
  const layers = Array.from({ length: shape.layerCount }, (_, index): LayerTensors => {
    const of = (name: string): string => `blk.${index}.${name}`;
    return {
      inputNorm: table.vector(of('attn_norm.weight'), hiddenSize),
      q: table.matrix(of('attn_q.weight'), queryRows, hiddenSize),
      k: table.matrix(of('attn_k.weight'), kvRows, hiddenSize),
      v: table.matrix(of('attn_v.weight'), kvRows, hiddenSize),
      o: table.matrix(of('attn_output.weight'), hiddenSize, queryRows),
      qBias: table.vectorIfThere(of('attn_q.bias'), queryRows),
      kBias: table.vectorIfThere(of('attn_k.bias'), kvRows),
      vBias: table.vectorIfThere(of('attn_v.bias'), kvRows),
      qNorm: null,
      kNorm: null,
      postAttentionNorm: table.vector(of('ffn_norm.weight'), hiddenSize),
      gate: table.matrix(of('ffn_gate.weight'), intermediateSize, hiddenSize),
      up: table.matrix(of('ffn_up.weight'), intermediateSize, hiddenSize),
      down: table.matrix(of('ffn_down.weight'), hiddenSize, intermediateSize),
    };
  });
  const embedding = table.matrix('token_embd.weight', vocabularySize, hiddenSize);
  const finalNorm = table.vector('output_norm.weight', hiddenSize);
  const head = table.has('output.weight')
    ? table.matrix('output.weight', vocabularySize, hiddenSize)
    : embedding;
  table.refuseLeftovers();
  return { embedding, layers, finalNorm, head };
}
