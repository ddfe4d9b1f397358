/**
 * A dense Llama that was loaded from a GGUF file, written as a Hugging Face folder in bf16 for peers that read no GGUF:
 * every weight dequantised and rounded to the nearest bf16, rows of q and k back in Hugging Face's order, the tokenizer as
 * our own loader sees it. Refuses what such a folder would say otherwise.
 */
import { closeSync, mkdirSync, openSync, readFileSync, writeFileSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import type { LoadedModel } from '../../../packages/kernels/model/loaded-model.ts';
import type { TensorSource } from '../../../packages/kernels/model/model-shape.ts';
import { formats } from '../../../packages/kernels/quantised-blocks.fixture.ts';

interface Placed {
  readonly name: string;
  readonly source: TensorSource;
  /** Rows of a head of this size are pairs (2i, 2i+1) in the file, and (i, i + size/2) in the folder; null: as they lie. */
  readonly headSize: number | null;
}

/** @throws Error for a model that is no plain Llama */
export function writeHuggingFaceFolder(model: LoadedModel, folder: string): void {
  const { shape, tokenizer } = model;
  const placed = placedTensors(model);
  mkdirSync(folder, { recursive: true });
  const json = (name: string, value: unknown) =>
    writeFileSync(join(folder, name), `${JSON.stringify(value, null, 2)}\n`);
  json('config.json', {
    architectures: ['LlamaForCausalLM'],
    model_type: 'llama',
    torch_dtype: 'bfloat16',
    hidden_act: 'silu',
    hidden_size: shape.hiddenSize,
    intermediate_size: shape.intermediateSize,
    num_hidden_layers: shape.layerCount,
    num_attention_heads: shape.headCount,
    num_key_value_heads: shape.kvHeadCount,
    head_dim: shape.headSize,
    vocab_size: shape.vocabularySize,
    max_position_embeddings: shape.maxPositionCount,
    rms_norm_eps: shape.rmsNormEpsilon,
    rope_theta: ropeTheta(model),
    tie_word_embeddings: model.tensors.head === model.tensors.embedding,
    bos_token_id: tokenizer.bosTokenId,
    eos_token_id: tokenizer.eosTokenIds[0],
  });
  json('generation_config.json', {
    bos_token_id: tokenizer.bosTokenId,
    eos_token_id: tokenizer.eosTokenIds,
  });
  json('tokenizer.json', tokenizer.tokenizerJson);
  json('tokenizer_config.json', {
    ...tokenizer.tokenizerConfig,
    tokenizer_class: 'PreTrainedTokenizerFast',
    chat_template: tokenizer.chatTemplate,
  });
  writeSafetensors(join(folder, 'model.safetensors'), placed);
}

function placedTensors({ shape, tensors }: LoadedModel): Placed[] {
  if (shape.experts !== null || shape.latent !== null) throw new Error('Only dense Llamas can be written.');
  const headSize = shape.isRopeInterleaved ? shape.headSize : null;
  const plain = (name: string, source: TensorSource): Placed => ({ name, source, headSize: null });
  const layers = tensors.layers.flatMap((layer, index) => {
    const { k, v, gate, up, down, qBias, qNorm } = layer;
    if (k === null || v === null || gate === null || up === null || down === null || qBias || qNorm) {
      throw new Error('Only Llamas without biases and head norms can be written.');
    }
    const of = (name: string): string => `model.layers.${index}.${name}.weight`;
    return [
      plain(of('input_layernorm'), layer.inputNorm),
      { name: of('self_attn.q_proj'), source: layer.q, headSize },
      { name: of('self_attn.k_proj'), source: k, headSize },
      plain(of('self_attn.v_proj'), v),
      plain(of('self_attn.o_proj'), layer.o),
      plain(of('post_attention_layernorm'), layer.postAttentionNorm),
      plain(of('mlp.gate_proj'), gate),
      plain(of('mlp.up_proj'), up),
      plain(of('mlp.down_proj'), down),
    ];
  });
  return [
    plain('model.embed_tokens.weight', tensors.embedding),
    ...layers,
    plain('model.norm.weight', tensors.finalNorm),
    ...(tensors.head === tensors.embedding ? [] : [plain('lm_head.weight', tensors.head)]),
  ];
}

/** The one number that plain rotary frequencies come from: theta^(-2i / size). */
function ropeTheta({ shape }: LoadedModel): number {
  const { ropeInverseFrequencies: frequencies, headSize } = shape;
  const theta = Math.round((frequencies[1] ?? 1) ** (-headSize / 2));
  const isPlain = frequencies.every((own, i) => Math.abs(own * theta ** ((2 * i) / headSize) - 1) < 1e-5);
  if (!isPlain) throw new Error('Only plain rotary frequencies can be written.');
  return theta;
}

/** See https://github.com/huggingface/safetensors: length of the header, header, tensors one behind the other. */
function writeSafetensors(file: string, placed: readonly Placed[]): void {
  let end = 0;
  const entries = placed.map(({ name, source: { rows, columns } }) => {
    const start = end;
    end += 2 * rows * columns;
    const shape = rows === 1 ? [columns] : [rows, columns];
    return [name, { dtype: 'BF16', shape, data_offsets: [start, end] }] as const;
  });
  const text = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const header = Buffer.concat([text, Buffer.alloc((8 - (text.length % 8)) % 8, ' ')]);
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(header.length));
  const files = new Map(
    [...new Set(placed.map(({ source }) => source.file))].map((one) => [one, readFileSync(one)]),
  );
  const descriptor = openSync(file, 'w');
  try {
    writeSync(descriptor, Buffer.concat([length, header]));
    for (const { source, headSize } of placed) {
      const bytes = files.get(source.file) ?? Buffer.alloc(0);
      const values = weightsOf(source, bytes.subarray(source.offset, source.offset + source.byteLength));
      const ordered = headSize === null ? values : inHalves(values, source, headSize);
      writeSync(descriptor, bf16Bytes(ordered));
    }
  } finally {
    closeSync(descriptor);
  }
}

function weightsOf({ dtype, rows, columns }: TensorSource, bytes: Buffer): Float32Array {
  const values = new Float32Array(rows * columns);
  if (dtype === 'F32') {
    for (const i of values.keys()) values[i] = bytes.readFloatLE(4 * i);
    return values;
  }
  const format = formats[dtype];
  if (format === undefined) throw new Error(`Tensors of type ${dtype} cannot be written.`);
  for (let at = 0, i = 0; i < values.length; at += format.bytes) {
    const block = bytes.subarray(at, at + format.bytes);
    for (let within = 0; within < format.weights; within += 1, i += 1)
      values[i] = format.weight(block, within);
  }
  return values;
}

/** Rows 2i and 2i+1 of each head become rows i and i + size/2. */
function inHalves(values: Float32Array, { rows, columns }: TensorSource, headSize: number): Float32Array {
  const ordered = new Float32Array(values.length);
  for (let row = 0; row < rows; row += 1) {
    const within = row % headSize;
    const to = row - within + (within >> 1) + (within % 2) * (headSize / 2);
    ordered.set(values.subarray(row * columns, (row + 1) * columns), to * columns);
  }
  return ordered;
}

/** Rounded to the nearest, ties to even. */
function bf16Bytes(values: Float32Array): Uint8Array {
  const bits = new Uint32Array(values.buffer, values.byteOffset, values.length);
  const halves = new Uint16Array(bits.length);
  for (const [i, one] of bits.entries()) halves[i] = (one + 0x7fff + ((one >>> 16) & 1)) >>> 16;
  return new Uint8Array(halves.buffer);
}
