/**
 * Model files that were right once: seeded edits of the headers of GGUF and safetensors files and of the JSON files of a
 * model folder: the story model's, and those of mixtures of experts. Used by `npm run fuzz -- models` and by its test; the same seed gives the same files. Weights are not
 * touched: whatever they hold is a number.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { generator } from '../../apps/engine/cli/workload.ts';
import {
  ggufBytes,
  type Plan,
  type Tensor,
  type Value,
} from '../../packages/kernels/model/gguf-writer.fixture.ts';
import {
  tiny,
  tinyQwen,
  tinyQwenMoe,
  tinySentencePiece,
} from '../../packages/kernels/model/tiny-gguf.fixture.ts';
import { damaged, edited, pick, type Random } from './mutations.ts';

export type MutatedModel =
  | { readonly kind: 'gguf'; readonly bytes: Uint8Array }
  /**
   * One file of a folder, which is given by its place in the list. `size` is that of the whole file: nothing but zeros
   * follows the bytes.
   */
  | {
      readonly kind: 'folder';
      readonly folder: number;
      readonly file: string;
      readonly bytes: Uint8Array;
      readonly size: number;
    };

/** What an index of the weights calls them. */
export const SHARD = 'model-00001-of-00001.safetensors';
export const FOLDER_FILES = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'model.safetensors',
] as const;

/** At the borders of the integer types, of what a double counts exactly, and of what is sensible. */
const oddIntegers = [0n, 1n, 2n, 7n, 255n, 65_535n, 1n << 24n, 1n << 31n, (1n << 32n) - 1n, 1n << 40n].concat(
  [(1n << 53n) - 1n, 1n << 53n, (1n << 63n) - 1n, 1n << 63n, (1n << 64n) - 1n],
);
const oddFloats = [0, -0, -1, 1, 1e-45, 3e38, 1e-30, Number.NaN, Number.POSITIVE_INFINITY];
const oddMetadata: readonly Value[] = [
  ...[0, 1, 2, 3, 7, 31, 64, 1000, 65_536, 2 ** 31, 2 ** 32 - 1],
  ...oddFloats.map((float) => ({ float })),
  { floats: oddFloats },
  ...['', ' ', 'none', 'yarn', 'linear', 'llama', 'gpt2', '\0\n\u001b[31m', 'x'.repeat(3000)],
  ...[true, false],
  ...[[], ['a'], ['a', 'a'], ['a', 'b', 'c', 'd', '\u2581'], [0], [3, 4, 1, 1, 9]],
];
const metadataKeys = [
  'rope.scaling.type',
  'rope.scaling.factor',
  'rope.scaling.original_context_length',
  'rope.scaling.attn_factor',
  'rope.scaling.yarn_beta_fast',
  'rope.scale_linear',
  'rope.dimension_count',
  'attention.key_length',
  'attention.sliding_window',
  'expert_count',
].flatMap((key) => [`llama.${key}`, `qwen3.${key}`]);
const expertKeys = [
  'used_count',
  'count',
  'feed_forward_length',
  'gating_func',
  'shared_count',
  'weights_scale',
];
const tokenizerKeys = ['bos_token_id', 'add_bos_token', 'unknown_token_id', 'scores', 'add_space_prefix'];
const oddMetadataKeys = [
  ...metadataKeys,
  ...expertKeys.map((key) => `qwen3moe.expert_${key}`),
  ...tokenizerKeys.map((key) => `tokenizer.ggml.${key}`),
  'general.alignment',
  'split.count',
];

const configKeys = [
  'head_dim',
  'sliding_window',
  'use_sliding_window',
  'max_window_layers',
  'layer_types',
  'rope_scaling',
  'rope_parameters',
  'rope_theta',
  'partial_rotary_factor',
  'attention_bias',
  'quantization_config',
  'auto_map',
  'num_key_value_heads',
  'num_experts',
  'num_local_experts',
  'num_experts_per_tok',
  'moe_intermediate_size',
  'mlp_only_layers',
  'decoder_sparse_step',
  'n_routed_experts',
  'n_shared_experts',
  'n_group',
  'topk_group',
  'first_k_dense_replace',
  'scoring_func',
  'q_lora_rank',
  'kv_lora_rank',
  'qk_nope_head_dim',
  'qk_rope_head_dim',
  'v_head_dim',
  'num_nextn_predict_layers',
  'bos_token_id',
  '__proto__',
  'constructor',
];
const ropeKinds = ['default', 'linear', 'dynamic', 'yarn', 'llama3', 'longrope', 7, null];
const ropeNumbers = [0, -1, 1, 1.5, 8, 1e-300, 5e-324, 1e6, 1e308, 2 ** 53, null, '8'];
const ropeKeys = ['factor', 'rope_theta', 'low_freq_factor', 'high_freq_factor', 'attention_factor'].concat([
  'beta_fast',
  'beta_slow',
  'mscale',
  'mscale_all_dim',
  'original_max_position_embeddings',
]);
const headerKeys = ['__metadata__', '__proto__', 'lm_head.weight', 'model.norm.weight', 'dtype', 'shape'];
const tokenizerJsonKeys = ['<|im_start|>', 'a', '\u0120', 'special', 'id', 'content', 'merges', '__proto__'];

/** @param folders where the files of folders are read: models/stories-5m, and what tiny-folder.fixture.ts writes */
export function* mutatedModels(folders: readonly string[], seed: number): Generator<MutatedModel> {
  const random = generator(seed);
  const plans = [tiny, tinySentencePiece, () => tinyQwen('qwen2'), () => tinyQwen('qwen3'), tinyQwenMoe];
  const files = folders.map(folderFiles);
  for (;;) {
    yield random() < 0.5
      ? { kind: 'gguf', bytes: mutatedGguf(pick(plans, random)(), random) }
      : mutatedFile(pick(pick(files, random), random), random);
  }
}

function mutatedGguf(plan: Plan, random: Random): Uint8Array {
  if (random() < 0.6) return Buffer.concat(Object.values(ggufBytes(withEdits(plan, random))));
  const { header, body } = ggufBytes(plan);
  if (random() < 0.5) return Buffer.concat([damaged(header, random), body]);
  const count = random() < 0.7 ? 1 : 3;
  for (let edit = 0; edit < count; edit += 1) {
    const at = Math.floor(random() * (header.length - 8));
    if (random() < 0.5) header.writeBigUInt64LE(pick(oddIntegers, random), at);
    else header.writeUInt32LE(Number(pick(oddIntegers, random) & 0xffff_ffffn), at);
  }
  return Buffer.concat([header, body]);
}

/** A file that is well formed and lies. */
function withEdits(plan: Plan, random: Random): Plan {
  const count = random() < 0.7 ? 1 : 3;
  for (let edit = 0; edit < count; edit += 1) {
    const kind = random();
    if (kind < 0.35) plan.metadata.set(pick([...plan.metadata.keys()], random), pick(oddMetadata, random));
    else if (kind < 0.55) plan.metadata.set(pick(oddMetadataKeys, random), pick(oddMetadata, random));
    else if (kind < 0.6) plan.metadata.delete(pick([...plan.metadata.keys()], random));
    else if (kind < 0.65) plan.tensorCount = pick(oddIntegers, random);
    else if (kind < 0.7) plan.pairCount = pick(oddIntegers, random);
    else if (kind < 0.75) plan.tensors = plan.tensors.filter(() => random() < 0.95);
    else {
      const chosen = pick(plan.tensors, random);
      plan.tensors = plan.tensors.map((tensor) => (tensor === chosen ? lying(tensor, random) : tensor));
    }
  }
  return plan;
}

function lying(tensor: Tensor, random: Random): Tensor {
  const small = Number(pick(oddIntegers, random) & 0xffn);
  switch (Math.floor(random() * 4)) {
    case 0:
      return { ...tensor, offset: small * (random() < 0.5 ? 32 : 1) };
    case 1:
      return { ...tensor, type: Math.floor(random() * 42) };
    case 2:
      return {
        ...tensor,
        name: random() < 0.5 ? 'blk.0.attn_q.weight' : pick(['', '\n', 'blk.9.x'], random),
      };
    default: {
      const size = Number(pick(oddIntegers, random) & ((1n << 53n) - 1n));
      const dimensions = tensor.dimensions.map((old) => (random() < 0.5 ? old : size));
      return { ...tensor, dimensions: random() < 0.1 ? [...dimensions, 1, 1, 1, 1] : dimensions };
    }
  }
}

interface FolderFile {
  readonly folder: number;
  readonly file: string;
  readonly bytes: Buffer;
  /** Of the file behind the bytes; 0 where they are all of it. */
  readonly weightBytes: number;
  readonly keys: readonly string[];
}

function folderFiles(path: string, folder: number): FolderFile[] {
  const keysOf = {
    'config.json': configKeys,
    'generation_config.json': ['top_p', 'top_k', 'do_sample'],
    'tokenizer.json': tokenizerJsonKeys,
    'tokenizer_config.json': ['bos_token', 'chat_template', 'eos_token', 'unk_token', 'add_bos_token'],
  };
  const files = Object.entries(keysOf).map(([file, keys]) => ({
    folder,
    file,
    keys,
    bytes: readFileSync(join(path, file)),
    weightBytes: 0,
  }));
  const weights = readFileSync(join(path, 'model.safetensors'));
  const headerBytes = Number(weights.readBigUInt64LE());
  const header = weights.subarray(8, 8 + headerBytes);
  const weightBytes = weights.length - header.length - 8;
  const names = Object.keys(JSON.parse(header.toString('utf8')));
  const index = { weight_map: Object.fromEntries(names.map((name) => [name, SHARD])) };
  return [
    ...files,
    { folder, file: 'model.safetensors', keys: headerKeys, bytes: header, weightBytes },
    {
      folder,
      file: 'model.safetensors.index.json',
      keys: ['weight_map', 'model.norm.weight'],
      bytes: Buffer.from(JSON.stringify(index)),
      weightBytes: 0,
    },
  ];
}

function mutatedFile({ folder, file, bytes, weightBytes, keys }: FolderFile, random: Random): MutatedModel {
  let changed: Uint8Array = random() < 0.3 ? damaged(bytes, random) : bytes;
  if (changed === bytes) {
    let value: unknown = JSON.parse(bytes.toString('utf8'));
    const count = random() < 0.7 ? 1 : 3;
    for (let edit = 0; edit < count; edit += 1) value = edited(value, random, keys, 'model_type');
    if (file === 'config.json' && random() < 0.4)
      value = { ...(value as object), rope_parameters: oddRope(random) };
    changed = Buffer.from(JSON.stringify(value));
  }
  if (file !== 'model.safetensors')
    return { kind: 'folder', folder, file, bytes: changed, size: changed.length };
  const length = Buffer.alloc(8);
  length.writeBigUInt64LE(random() < 0.1 ? pick(oddIntegers, random) : BigInt(changed.length));
  const all = Buffer.concat([length, changed]);
  const tail = random() < 0.9 ? weightBytes : pick([0, 1, weightBytes - 1, weightBytes + 2], random);
  return { kind: 'folder', folder, file, bytes: all, size: all.length + tail };
}

const oddRope = (random: Random): Record<string, unknown> =>
  Object.fromEntries([
    ['rope_type', pick(ropeKinds, random)],
    ...ropeKeys.filter(() => random() < 0.4).map((key) => [key, pick(ropeNumbers, random)] as const),
  ]);
