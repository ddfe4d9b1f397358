/**
 * Hugging Face folders small enough to read by the thousand: mixtures of experts of two layers, the first one dense, with
 * the vocabulary of another folder. Weights are zeros, so that every choice among experts is a tie.
 */
import { copyFileSync, mkdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const HIDDEN = 32;
const EXPERT_COUNT = 4;
const EXPERT_SIZE = 16;
type Shape = readonly number[];

const common = {
  vocab_size: 2048,
  hidden_size: HIDDEN,
  intermediate_size: 24,
  num_hidden_layers: 2,
  num_attention_heads: 2,
  max_position_embeddings: 128,
  moe_intermediate_size: EXPERT_SIZE,
  num_experts_per_tok: 2,
  norm_topk_prob: true,
  rope_parameters: { rope_theta: 10_000, rope_type: 'default' },
  tie_word_embeddings: true,
  bos_token_id: 0,
  eos_token_id: 2,
};

const configs = {
  'qwen3-moe': {
    ...common,
    model_type: 'qwen3_moe',
    architectures: ['Qwen3MoeForCausalLM'],
    num_key_value_heads: 1,
    head_dim: 16,
    num_experts: EXPERT_COUNT,
    mlp_only_layers: [0],
    decoder_sparse_step: 1,
  },
  'deepseek-v3': {
    ...common,
    model_type: 'deepseek_v3',
    architectures: ['DeepseekV3ForCausalLM'],
    num_key_value_heads: 2,
    q_lora_rank: 12,
    kv_lora_rank: 8,
    qk_nope_head_dim: 8,
    qk_rope_head_dim: 4,
    v_head_dim: 6,
    n_routed_experts: EXPERT_COUNT,
    n_shared_experts: 1,
    n_group: 2,
    topk_group: 1,
    first_k_dense_replace: 1,
    routed_scaling_factor: 2.5,
    scoring_func: 'sigmoid',
    num_nextn_predict_layers: 0,
  },
};
export type TinyFolder = keyof typeof configs;
export const tinyFolders = Object.keys(configs) as TinyFolder[];

const attentions: Record<TinyFolder, Readonly<Record<string, Shape>>> = {
  'qwen3-moe': {
    'q_proj.weight': [32, HIDDEN],
    'k_proj.weight': [16, HIDDEN],
    'v_proj.weight': [16, HIDDEN],
    'o_proj.weight': [HIDDEN, 32],
    'q_norm.weight': [16],
    'k_norm.weight': [16],
  },
  'deepseek-v3': {
    'q_a_proj.weight': [12, HIDDEN],
    'q_a_layernorm.weight': [12],
    'q_b_proj.weight': [24, 12],
    'kv_a_proj_with_mqa.weight': [12, HIDDEN],
    'kv_a_layernorm.weight': [8],
    'kv_b_proj.weight': [28, 8],
    'o_proj.weight': [HIDDEN, 12],
  },
};

function tensorsOf(kind: TinyFolder): [string, Shape][] {
  const mlp = (of: string, size: number): [string, Shape][] => [
    [`${of}.gate_proj.weight`, [size, HIDDEN]],
    [`${of}.up_proj.weight`, [size, HIDDEN]],
    [`${of}.down_proj.weight`, [HIDDEN, size]],
  ];
  const expertsOf = (of: string): [string, Shape][] => [
    [`${of}.gate.weight`, [EXPERT_COUNT, HIDDEN]],
    ...Array.from({ length: EXPERT_COUNT }, (_, expert) =>
      mlp(`${of}.experts.${expert}`, EXPERT_SIZE),
    ).flat(),
    ...(kind === 'qwen3-moe'
      ? []
      : ([[`${of}.gate.e_score_correction_bias`, [EXPERT_COUNT]]] as [string, Shape][])),
    ...(kind === 'qwen3-moe' ? [] : mlp(`${of}.shared_experts`, EXPERT_SIZE)),
  ];
  const layers = [0, 1].flatMap((index): [string, Shape][] => {
    const layer = `model.layers.${index}`;
    return [
      [`${layer}.input_layernorm.weight`, [HIDDEN]],
      [`${layer}.post_attention_layernorm.weight`, [HIDDEN]],
      ...Object.entries(attentions[kind]).map(([name, shape]): [string, Shape] => [
        `${layer}.self_attn.${name}`,
        shape,
      ]),
      ...(index === 0 ? mlp(`${layer}.mlp`, common.intermediate_size) : expertsOf(`${layer}.mlp`)),
    ];
  });
  return [
    ['model.embed_tokens.weight', [common.vocab_size, HIDDEN]],
    ...layers,
    ['model.norm.weight', [HIDDEN]],
  ];
}

/** @param tokenizerFolder whose tokenizer.json of 2,048 tokens is copied */
export function writeTinyFolder(folder: string, kind: TinyFolder, tokenizerFolder: string): void {
  mkdirSync(folder, { recursive: true });
  for (const file of ['generation_config.json', 'tokenizer.json', 'tokenizer_config.json']) {
    copyFileSync(join(tokenizerFolder, file), join(folder, file));
  }
  writeFileSync(join(folder, 'config.json'), JSON.stringify(configs[kind]));
  let end = 0;
  const header = Object.fromEntries(
    tensorsOf(kind).map(([name, shape]) => {
      const begin = end;
      end += 2 * shape.reduce((product, size) => product * size, 1);
      return [name, { dtype: 'BF16', shape, data_offsets: [begin, end] }];
    }),
  );
  const text = Buffer.from(JSON.stringify(header));
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(BigInt(text.length));
  writeFileSync(join(folder, 'model.safetensors'), Buffer.concat([length, text, Buffer.alloc(end)]));
}
