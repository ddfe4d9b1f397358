/**
 * A GGUF file of a Llama of any shape with random Q8_0 weights: speed depends on shapes alone, and the real model need not
 * be fetched. Its text is nonsense. Written a tensor at a time: TinyLlama's takes 1.2 GB.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import {
  ggufHeader,
  type Plan,
  type Tensor,
  type Value,
} from '../../../packages/kernels/model/gguf-writer.fixture.ts';

export interface LlamaShape {
  readonly hidden: number;
  readonly intermediate: number;
  readonly layerCount: number;
  readonly headCount: number;
  readonly kvHeadCount: number;
  /** At least 259: three special tokens and the bytes. */
  readonly vocabularySize: number;
}

/** TinyLlama-1.1B's. */
export const tinyLlama: LlamaShape = {
  hidden: 2048,
  intermediate: 5632,
  layerCount: 22,
  headCount: 32,
  kvHeadCount: 4,
  vocabularySize: 32_000,
};

const F32 = 0;
const Q8_0 = 8;

export function writeRandomLlama(file: string, shape: LlamaShape): void {
  const plan = planOf(shape);
  const descriptor = openSync(file, 'w');
  try {
    writeSync(descriptor, ggufHeader(plan));
    let state = 1;
    const next = () => {
      state ^= state << 13;
      state ^= state >>> 17;
      state ^= state << 5;
      return state;
    };
    for (const { type, byteLength } of plan.tensors) {
      const words = new Int32Array(Math.ceil(byteLength / 4));
      const bytes = Buffer.from(words.buffer, 0, byteLength);
      if (type === F32) new Float32Array(words.buffer).fill(1);
      else {
        for (let i = 0; i < words.length; i += 1) words[i] = next();
        // A scale of 2^-13 makes weights up to 2^-6 of either sign.
        for (let block = 0; block < byteLength; block += 34) bytes.writeUInt16LE(0x0800, block);
      }
      writeSync(descriptor, bytes);
      writeSync(descriptor, Buffer.alloc((32 - (byteLength % 32)) % 32));
    }
  } finally {
    closeSync(descriptor);
  }
}

function planOf(shape: LlamaShape): Plan {
  const { hidden, intermediate, layerCount, headCount, kvHeadCount, vocabularySize } = shape;
  const vector = (name: string): Tensor => ({
    name,
    dimensions: [hidden],
    type: F32,
    byteLength: hidden * 4,
  });
  const matrix = (name: string, rows: number, columns: number): Tensor => ({
    name,
    dimensions: [columns, rows],
    type: Q8_0,
    byteLength: ((rows * columns) / 32) * 34,
  });
  const kvSize = (hidden / headCount) * kvHeadCount;
  const layers = Array.from({ length: layerCount }, (_, index) => `blk.${index}`).flatMap((layer) => [
    vector(`${layer}.attn_norm.weight`),
    matrix(`${layer}.attn_q.weight`, hidden, hidden),
    matrix(`${layer}.attn_k.weight`, kvSize, hidden),
    matrix(`${layer}.attn_v.weight`, kvSize, hidden),
    matrix(`${layer}.attn_output.weight`, hidden, hidden),
    vector(`${layer}.ffn_norm.weight`),
    matrix(`${layer}.ffn_gate.weight`, intermediate, hidden),
    matrix(`${layer}.ffn_up.weight`, intermediate, hidden),
    matrix(`${layer}.ffn_down.weight`, hidden, intermediate),
  ]);
  const tokens = Array.from({ length: vocabularySize }, (_, id) =>
    id < 3 ? (['<unk>', '<s>', '</s>'][id] ?? '') : id < 259 ? byteToken(id - 3) : `t${id}`,
  );
  return {
    version: 3,
    metadata: new Map<string, Value>([
      ['general.architecture', 'llama'],
      ['llama.block_count', layerCount],
      ['llama.context_length', 2048],
      ['llama.embedding_length', hidden],
      ['llama.feed_forward_length', intermediate],
      ['llama.attention.head_count', headCount],
      ['llama.attention.head_count_kv', kvHeadCount],
      ['llama.attention.layer_norm_rms_epsilon', { float: 1e-5 }],
      ['llama.rope.freq_base', { float: 10_000 }],
      ['llama.rope.dimension_count', hidden / headCount],
      ['tokenizer.ggml.model', 'llama'],
      ['tokenizer.ggml.tokens', tokens],
      ['tokenizer.ggml.scores', { floats: tokens.map((_, id) => -id) }],
      [
        'tokenizer.ggml.token_type',
        { integers: tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1)) },
      ],
      ['tokenizer.ggml.unknown_token_id', 0],
      ['tokenizer.ggml.bos_token_id', 1],
      ['tokenizer.ggml.eos_token_id', 2],
    ]),
    tensors: [
      matrix('token_embd.weight', vocabularySize, hidden),
      ...layers,
      vector('output_norm.weight'),
      matrix('output.weight', vocabularySize, hidden),
    ],
  };
}

const byteToken = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
