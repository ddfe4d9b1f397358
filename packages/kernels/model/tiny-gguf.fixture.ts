/** GGUF files small enough to write by the thousand: plans of models of one layer, one for each kind that is read. */
import { f32, type Plan, type Tensor, type Value } from './gguf-writer.fixture.ts';

const F32 = 0;
const Q4_0 = 2;
const Q8_0 = 8;

export const vector = (name: string, size: number): Tensor => ({
  name,
  dimensions: [size],
  type: F32,
  byteLength: size * 4,
});

export const matrix = (name: string, rows: number, columns: number, type = Q8_0): Tensor => ({
  name,
  dimensions: [columns, rows],
  type,
  byteLength: (rows * columns * (type === Q8_0 ? 34 : 18)) / 32,
});

/** A llama of one layer: hidden 64, 2 heads of 32 and 1 for keys, MLP 96, 5 tokens. */
export function tiny(): Plan {
  return {
    version: 3,
    metadata: new Map<string, Value>([
      ['general.architecture', 'llama'],
      ['llama.block_count', 1],
      ['llama.context_length', 128],
      ['llama.embedding_length', 64],
      ['llama.feed_forward_length', 96],
      ['llama.attention.head_count', 2],
      ['llama.attention.head_count_kv', 1],
      ['llama.attention.layer_norm_rms_epsilon', { float: 2 ** -17 }],
      ['llama.rope.freq_base', { float: 10_000 }],
      ['tokenizer.ggml.model', 'gpt2'],
      ['tokenizer.ggml.pre', 'smollm'],
      ['tokenizer.ggml.tokens', ['<end>', '<user>', 'a', 'b', 'ab']],
      ['tokenizer.ggml.token_type', [3, 4, 1, 1, 1]],
      ['tokenizer.ggml.merges', ['a b']],
      ['tokenizer.ggml.eos_token_id', 0],
      ['tokenizer.chat_template', 'TEMPLATE'],
    ]),
    tensors: [
      matrix('token_embd.weight', 5, 64),
      vector('output_norm.weight', 64),
      vector('blk.0.attn_norm.weight', 64),
      vector('blk.0.ffn_norm.weight', 64),
      matrix('blk.0.attn_q.weight', 64, 64),
      matrix('blk.0.attn_k.weight', 32, 64),
      matrix('blk.0.attn_v.weight', 32, 64),
      matrix('blk.0.attn_output.weight', 64, 64),
      matrix('blk.0.ffn_gate.weight', 96, 64, Q4_0),
      matrix('blk.0.ffn_up.weight', 96, 64, Q4_0),
      matrix('blk.0.ffn_down.weight', 64, 96, Q4_0),
    ],
  };
}

/** With a SentencePiece vocabulary, a head of its own, rope divisors and linear weights. */
export function tinySentencePiece(): Plan {
  const plan = tiny();
  const { metadata } = plan;
  metadata.delete('tokenizer.ggml.pre');
  metadata.delete('tokenizer.ggml.merges');
  const tokens = ['<unk>', '<s>', '</s>', '<0x0A>', '\u2581', 'a', '\u2581a', 'aa'];
  metadata
    .set('tokenizer.ggml.model', 'llama')
    .set('tokenizer.ggml.tokens', tokens)
    .set('tokenizer.ggml.scores', { floats: [0, 0, 0, 0, -1, -2, -3, -4] })
    .set('tokenizer.ggml.token_type', [2, 3, 3, 6, 1, 1, 1, 1])
    .set('tokenizer.ggml.unknown_token_id', 0)
    .set('tokenizer.ggml.bos_token_id', 1)
    .set('tokenizer.ggml.eos_token_id', 2)
    .set('tokenizer.ggml.add_bos_token', true)
    .set('llama.attention.sliding_window', 32);
  const divisors = Buffer.concat(Array.from({ length: 16 }, (_, index) => f32(index + 1)));
  plan.tensors = [
    matrix('token_embd.weight', tokens.length, 64),
    ...plan.tensors.slice(1),
    matrix('output.weight', tokens.length, 64),
    { ...vector('rope_freqs.weight', 16), data: divisors },
  ];
  return plan;
}

/** Three experts of 32 in the MLP's place, two of them for a token. */
export function tinyQwenMoe(): Plan {
  const { metadata, tensors, ...plan } = tinyQwen('qwen3');
  const of = (key: string): string => key.replace(/^qwen3\./, 'qwen3moe.');
  const stacked = (name: string, rows: number, columns: number): Tensor => {
    const one = matrix(name, rows, columns);
    return { ...one, dimensions: [columns, rows, 3], byteLength: 3 * one.byteLength };
  };
  return {
    ...plan,
    metadata: new Map([...metadata].map(([key, value]): [string, Value] => [of(key), value]))
      .set('general.architecture', 'qwen3moe')
      .set('qwen3moe.expert_count', 3)
      .set('qwen3moe.expert_used_count', 2)
      .set('qwen3moe.expert_feed_forward_length', 32),
    tensors: [
      ...tensors.filter(({ name }) => !/ffn_(gate|up|down)/.test(name)),
      matrix('blk.0.ffn_gate_inp.weight', 3, 64),
      stacked('blk.0.ffn_gate_exps.weight', 32, 64),
      stacked('blk.0.ffn_up_exps.weight', 32, 64),
      stacked('blk.0.ffn_down_exps.weight', 64, 32),
    ],
  };
}

/** With biases, or with head norms and YaRN. */
export function tinyQwen(architecture: 'qwen2' | 'qwen3'): Plan {
  const plan = tiny();
  const of = (key: string): string => key.replace(/^llama\./, `${architecture}.`);
  const metadata = new Map([...plan.metadata].map(([key, value]): [string, Value] => [of(key), value]));
  metadata.set('general.architecture', architecture).set('tokenizer.ggml.pre', 'qwen2');
  if (architecture === 'qwen3') {
    metadata
      .set('qwen3.rope.scaling.type', 'yarn')
      .set('qwen3.rope.scaling.factor', { float: 4 })
      .set('qwen3.rope.scaling.original_context_length', 32);
  }
  const extra =
    architecture === 'qwen2'
      ? [vector('blk.0.attn_q.bias', 64), vector('blk.0.attn_k.bias', 32), vector('blk.0.attn_v.bias', 32)]
      : [vector('blk.0.attn_q_norm.weight', 32), vector('blk.0.attn_k_norm.weight', 32)];
  return { ...plan, metadata, tensors: [...plan.tensors, ...extra] };
}
