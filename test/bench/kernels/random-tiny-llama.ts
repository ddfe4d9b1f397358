/**
 * A GGUF file of TinyLlama-1.1B's shape with random Q8_0 weights, 1.2 GB: speed depends on shapes alone, and the real one
 * need not be fetched. Its text is nonsense. Written a tensor at a time.
 */
import { closeSync, openSync, writeSync } from 'node:fs';
import {
  ggufHeader,
  type Plan,
  type Tensor,
  type Value,
} from '../../../packages/kernels/model/gguf-writer.fixture.ts';

const HIDDEN = 2048;
const INTERMEDIATE = 5632;
const LAYERS = 22;
const HEADS = 32;
const KV_HEADS = 4;
const VOCABULARY = 32_000;
const F32 = 0;
const Q8_0 = 8;

export async function writeRandomTinyLlama(file: string): Promise<void> {
  const plan = tinyLlama();
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

function tinyLlama(): Plan {
  const vector = (name: string): Tensor => ({
    name,
    dimensions: [HIDDEN],
    type: F32,
    byteLength: HIDDEN * 4,
  });
  const matrix = (name: string, rows: number, columns: number): Tensor => ({
    name,
    dimensions: [columns, rows],
    type: Q8_0,
    byteLength: ((rows * columns) / 32) * 34,
  });
  const kvSize = (HIDDEN / HEADS) * KV_HEADS;
  const layers = Array.from({ length: LAYERS }, (_, index) => `blk.${index}`).flatMap((layer) => [
    vector(`${layer}.attn_norm.weight`),
    matrix(`${layer}.attn_q.weight`, HIDDEN, HIDDEN),
    matrix(`${layer}.attn_k.weight`, kvSize, HIDDEN),
    matrix(`${layer}.attn_v.weight`, kvSize, HIDDEN),
    matrix(`${layer}.attn_output.weight`, HIDDEN, HIDDEN),
    vector(`${layer}.ffn_norm.weight`),
    matrix(`${layer}.ffn_gate.weight`, INTERMEDIATE, HIDDEN),
    matrix(`${layer}.ffn_up.weight`, INTERMEDIATE, HIDDEN),
    matrix(`${layer}.ffn_down.weight`, HIDDEN, INTERMEDIATE),
  ]);
  const tokens = Array.from({ length: VOCABULARY }, (_, id) =>
    id < 3 ? (['<unk>', '<s>', '</s>'][id] ?? '') : id < 259 ? byteToken(id - 3) : `t${id}`,
  );
  return {
    version: 3,
    metadata: new Map<string, Value>([
      ['general.architecture', 'llama'],
      ['llama.block_count', LAYERS],
      ['llama.context_length', 2048],
      ['llama.embedding_length', HIDDEN],
      ['llama.feed_forward_length', INTERMEDIATE],
      ['llama.attention.head_count', HEADS],
      ['llama.attention.head_count_kv', KV_HEADS],
      ['llama.attention.layer_norm_rms_epsilon', { float: 1e-5 }],
      ['llama.rope.freq_base', { float: 10_000 }],
      ['llama.rope.dimension_count', HIDDEN / HEADS],
      ['tokenizer.ggml.model', 'llama'],
      ['tokenizer.ggml.tokens', tokens],
      ['tokenizer.ggml.scores', { floats: tokens.map((_, id) => -id) }],
      ['tokenizer.ggml.token_type', tokens.map((_, id) => (id === 0 ? 2 : id < 3 ? 3 : id < 259 ? 6 : 1))],
      ['tokenizer.ggml.unknown_token_id', 0],
      ['tokenizer.ggml.bos_token_id', 1],
      ['tokenizer.ggml.eos_token_id', 2],
    ]),
    tensors: [
      matrix('token_embd.weight', VOCABULARY, HIDDEN),
      ...layers,
      vector('output_norm.weight'),
      matrix('output.weight', VOCABULARY, HIDDEN),
    ],
  };
}

const byteToken = (byte: number) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`;
