/**
 * config.json of a Llama, Mistral, Qwen2, Qwen3, Qwen3-MoE or DeepSeek-V3 -> architecture and shape. Called by
 * hugging-face.ts; pure.
 * Where a key is absent, transformers' own default holds. Refuses by name what would compute something else:
 * unknown architectures, code of the model's own, quantised weights, other rope scalings, other activations.
 */
import { z } from 'zod';
import {
  deepseekV3Fields,
  type HuggingFaceExperts,
  qwen3MoeFields,
  readDeepseekV3Experts,
  readQwen3MoeExperts,
} from './hugging-face-experts.ts';
import { type LatentFields, latentFields, latentHeadSize } from './hugging-face-latent.ts';
import { latentScoreFactor, readRope, ropeSchema } from './hugging-face-rope.ts';
import { parseFields } from './json-file.ts';
import type { LoadedModel } from './loaded-model.ts';
import { ModelError } from './model-error.ts';
import type { LatentShape, ModelShape } from './model-shape.ts';

export interface HuggingFaceConfig {
  readonly architecture: LoadedModel['architecture'];
  readonly shape: ModelShape;
  readonly isHeadTied: boolean;
  /** [layerCount] True where a layer's tokens pass through experts. */
  readonly isSparse: readonly boolean[];
  /** Layers behind the last that predict further tokens; nothing here asks them. */
  readonly nextTokenLayerCount: number;
  /** True where q, k and v carry biases. */
  readonly isAttentionBiased: boolean;
  readonly bosTokenId: number | null;
  readonly eosTokenIds: readonly number[];
}

/** A stored id or list of ids; null and absent are none. */
export const tokenIdsSchema = z
  .union([z.int().min(0), z.array(z.int().min(0))])
  .nullish()
  .transform((ids) => (ids === null || ids === undefined ? [] : [ids].flat()));

const count = (most: number) => z.int().min(1).max(most);
const positive = z.number().positive();
/** As the native side has it. */
const MOST_HEAD_SIZE = 1024;

const configSchema = z.object({
  vocab_size: count(4_000_000),
  hidden_size: count(1_000_000),
  intermediate_size: count(4_000_000),
  num_hidden_layers: count(1_000),
  num_attention_heads: count(4096),
  num_key_value_heads: count(4096).nullish(),
  head_dim: count(MOST_HEAD_SIZE).nullish(),
  max_position_embeddings: count(100_000_000),
  rms_norm_eps: z.number().min(1e-30).lt(1).default(1e-6),
  hidden_act: z.string().default('silu'),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  rope_theta: positive.nullish(),
  rope_scaling: ropeSchema,
  rope_parameters: ropeSchema,
  partial_rotary_factor: z.number().nullish(),
  original_max_position_embeddings: count(1e9).nullish(),
  sliding_window: count(100_000_000).nullish(),
  use_sliding_window: z.boolean().default(false),
  max_window_layers: z.int().min(0).default(28),
  layer_types: z.array(z.string()).nullish(),
  bos_token_id: tokenIdsSchema,
  eos_token_id: tokenIdsSchema,
});
const qwen3MoeSchema = z.object(qwen3MoeFields);
const deepseekV3Schema = z.object({ ...deepseekV3Fields, ...latentFields });
type Config = z.infer<typeof configSchema>;

const identitySchema = z.object({
  model_type: z.string(),
  architectures: z.array(z.string()).nullish(),
  auto_map: z.unknown().optional(),
  quantization_config: z.object({ quant_method: z.string().optional() }).nullish(),
});

const CLASS_NAMES: Readonly<Record<string, LoadedModel['architecture']>> = {
  LlamaForCausalLM: 'llama',
  MistralForCausalLM: 'mistral',
  Qwen2ForCausalLM: 'qwen2',
  Qwen3ForCausalLM: 'qwen3',
  Qwen3MoeForCausalLM: 'qwen3_moe',
  DeepseekV3ForCausalLM: 'deepseek_v3',
};

export function parseHuggingFaceConfig(file: string, json: Record<string, unknown>): HuggingFaceConfig {
  const architecture = readArchitecture(file, json);
  const config = parseFields(file, configSchema, json);
  const headCount = config.num_attention_heads;
  const kvHeadCount = config.num_key_value_heads ?? headCount;
  if (headCount % kvHeadCount !== 0) {
    throw new ModelError(file, `${headCount} attention heads cannot share ${kvHeadCount} key/value heads.`);
  }
  const deepseek = architecture === 'deepseek_v3' ? parseFields(file, deepseekV3Schema, json) : null;
  if (deepseek !== null && kvHeadCount !== headCount) {
    throw new ModelError(
      file,
      `${headCount} attention heads have latent keys of their own, not ${kvHeadCount}.`,
    );
  }
  if (deepseek !== null && config.attention_bias) {
    throw new ModelError(file, '"attention_bias" is true; biases beside latents are not computed.');
  }
  const headSize =
    deepseek === null ? readHeadSize(file, architecture, config) : latentHeadSize(file, deepseek);
  if (config.hidden_act !== 'silu') {
    throw new ModelError(file, `"hidden_act" is ${config.hidden_act}; only silu is computed.`);
  }
  if (config.mlp_bias) throw new ModelError(file, '"mlp_bias" is true; biases in the MLP are not computed.');
  const sparse: HuggingFaceExperts | null =
    architecture === 'qwen3_moe'
      ? readQwen3MoeExperts(file, parseFields(file, qwen3MoeSchema, json))
      : deepseek && readDeepseekV3Experts(file, deepseek);
  return {
    architecture,
    shape: {
      layerCount: config.num_hidden_layers,
      hiddenSize: config.hidden_size,
      intermediateSize: config.intermediate_size,
      headCount,
      kvHeadCount,
      headSize,
      vocabularySize: config.vocab_size,
      rmsNormEpsilon: config.rms_norm_eps,
      ...readRope(file, config, deepseek?.qk_rope_head_dim ?? headSize),
      windowTokens: readWindows(file, architecture, config, json),
      isRopeInterleaved: deepseek?.rope_interleave ?? false,
      experts: sparse?.experts ?? null,
      latent: deepseek && readLatent(file, deepseek, config),
    },
    nextTokenLayerCount: deepseek?.num_nextn_predict_layers ?? 0,
    isSparse: Array.from(
      { length: config.num_hidden_layers },
      (_, layer) => sparse?.isSparse(layer) ?? false,
    ),
    isHeadTied: config.tie_word_embeddings,
    isAttentionBiased: config.attention_bias || architecture === 'qwen2',
    bosTokenId: config.bos_token_id[0] ?? null,
    eosTokenIds: config.eos_token_id,
  };
}

function readHeadSize(file: string, architecture: LoadedModel['architecture'], config: Config): number {
  const { head_dim, hidden_size, num_attention_heads } = config;
  const headSize = head_dim ?? (architecture === 'qwen3' ? 128 : hidden_size / num_attention_heads);
  if (!Number.isInteger(headSize) || headSize % 2 !== 0 || headSize > MOST_HEAD_SIZE) {
    throw new ModelError(
      file,
      `a head size of ${headSize} is not an even whole number up to ${MOST_HEAD_SIZE}.`,
    );
  }
  return headSize;
}

function readLatent(file: string, latent: LatentFields, config: Config): LatentShape {
  return {
    queryRank: latent.q_lora_rank ?? 0,
    keyValueRank: latent.kv_lora_rank,
    ropeSize: latent.qk_rope_head_dim,
    valueHeadSize: latent.v_head_dim,
    scoreFactor: latentScoreFactor(file, config),
    isAbsorbed: true,
  };
}

function readArchitecture(file: string, json: Record<string, unknown>): LoadedModel['architecture'] {
  const identity = parseFields(file, identitySchema, json);
  const className = identity.architectures?.[0];
  const known = Object.values(CLASS_NAMES).find((name) => name === identity.model_type);
  if (known === undefined || (className !== undefined && CLASS_NAMES[className] !== known)) {
    throw new ModelError(
      file,
      `the architecture ${className ?? identity.model_type} is not read; ${Object.keys(CLASS_NAMES).join(', ')} are.`,
    );
  }
  if (identity.auto_map !== undefined && identity.auto_map !== null) {
    throw new ModelError(file, 'the model needs code of its own ("auto_map"), which is never run here.');
  }
  if (identity.quantization_config) {
    const method = identity.quantization_config.quant_method ?? 'an unnamed method';
    throw new ModelError(
      file,
      `the weights are quantised by ${method}; folders with F32, F16 or BF16 are read.`,
    );
  }
  return known;
}

/** By layer; 0 where a layer attends to everything. */
function readWindows(
  file: string,
  architecture: LoadedModel['architecture'],
  config: Config,
  json: Record<string, unknown>,
): Int32Array {
  const layerCount = config.num_hidden_layers;
  const types = config.layer_types ?? null;
  const odd = types?.find((kind) => kind !== 'full_attention' && kind !== 'sliding_attention');
  if (odd !== undefined) throw new ModelError(file, `layers of type "${odd}" are not computed.`);
  if (types !== null && types.length !== layerCount) {
    throw new ModelError(file, `it has ${layerCount} layers and ${types.length} layer types.`);
  }
  // MistralConfig's default window is 4,096; an explicit null turns it off. The Qwens have one where they say so.
  const isWindowed = architecture === 'mistral' || config.use_sliding_window;
  const given = 'sliding_window' in json ? config.sliding_window : 4_096;
  const window = isWindowed ? (given ?? 0) : 0;
  const isSliding = (layer: number): boolean => {
    if (architecture === 'llama' || architecture === 'deepseek_v3') return false;
    // Neither looks at layers one by one.
    if (architecture === 'mistral' || architecture === 'qwen3_moe') return true;
    return types === null ? layer >= config.max_window_layers : types[layer] === 'sliding_attention';
  };
  return Int32Array.from({ length: layerCount }, (_, layer) => (isSliding(layer) ? window : 0));
}
