/**
 * config.json of a dense Llama, Mistral, Qwen2 or Qwen3 -> architecture and shape. Called by hugging-face.ts; pure.
 * Where a key is absent, transformers' own default holds. Refuses by name what would compute something else:
 * unknown architectures, code of the model's own, quantised weights, other rope scalings, other activations.
 */
import { z } from 'zod';
import { parseFields } from './json-file.ts';
import type { LoadedModel } from './loaded-model.ts';
import { ModelError } from './model-error.ts';
import type { ModelShape } from './model-shape.ts';
import { type RopeScaling, ropeInverseFrequencies } from './rope.ts';

export interface HuggingFaceConfig {
  readonly architecture: LoadedModel['architecture'];
  readonly shape: ModelShape;
  readonly isHeadTied: boolean;
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

const ropeSchema = z
  .looseObject({
    type: z.string().nullish(),
    rope_type: z.string().nullish(),
    rope_theta: positive.nullish(),
    factor: positive.nullish(),
    low_freq_factor: positive.nullish(),
    high_freq_factor: positive.nullish(),
    original_max_position_embeddings: count(1e9).nullish(),
    partial_rotary_factor: z.number().nullish(),
  })
  .nullish();

const configSchema = z.object({
  vocab_size: count(4_000_000),
  hidden_size: count(1_000_000),
  intermediate_size: count(4_000_000),
  num_hidden_layers: count(1_000),
  num_attention_heads: count(10_000),
  num_key_value_heads: count(10_000).nullish(),
  head_dim: count(10_000).nullish(),
  max_position_embeddings: count(100_000_000),
  rms_norm_eps: positive.max(1).default(1e-6),
  hidden_act: z.string().default('silu'),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().default(false),
  mlp_bias: z.boolean().default(false),
  rope_theta: positive.nullish(),
  rope_scaling: ropeSchema,
  rope_parameters: ropeSchema,
  partial_rotary_factor: z.number().nullish(),
  sliding_window: count(100_000_000).nullish(),
  use_sliding_window: z.boolean().default(false),
  layer_types: z.array(z.string()).nullish(),
  bos_token_id: tokenIdsSchema,
  eos_token_id: tokenIdsSchema,
});
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
};

export function parseHuggingFaceConfig(file: string, json: Record<string, unknown>): HuggingFaceConfig {
  const architecture = readArchitecture(file, json);
  const config = parseFields(file, configSchema, json);
  const headCount = config.num_attention_heads;
  const kvHeadCount = config.num_key_value_heads ?? headCount;
  if (headCount % kvHeadCount !== 0) {
    throw new ModelError(file, `${headCount} attention heads cannot share ${kvHeadCount} key/value heads.`);
  }
  const headSize = config.head_dim ?? (architecture === 'qwen3' ? 128 : config.hidden_size / headCount);
  if (!Number.isInteger(headSize) || headSize % 2 !== 0) {
    throw new ModelError(file, `a head size of ${headSize} is not an even whole number.`);
  }
  if (config.hidden_act !== 'silu') {
    throw new ModelError(file, `"hidden_act" is ${config.hidden_act}; only silu is computed.`);
  }
  if (config.mlp_bias) throw new ModelError(file, '"mlp_bias" is true; biases in the MLP are not computed.');
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
      maxPositionCount: Math.min(
        config.max_position_embeddings,
        windowTokens(file, architecture, config, json),
      ),
      rmsNormEpsilon: config.rms_norm_eps,
      ropeInverseFrequencies: readRope(file, config, headSize),
      isRopeInterleaved: false,
    },
    isHeadTied: config.tie_word_embeddings,
    isAttentionBiased: config.attention_bias || architecture === 'qwen2',
    bosTokenId: config.bos_token_id[0] ?? null,
    eosTokenIds: config.eos_token_id,
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

function readRope(file: string, config: Config, headSize: number): Float32Array {
  const rope = { ...config.rope_scaling, ...config.rope_parameters };
  if (Object.values(rope).some((value) => typeof value === 'object' && value !== null)) {
    throw new ModelError(file, 'its rope differs from layer to layer, which is not computed.');
  }
  const rotaryShare = rope.partial_rotary_factor ?? config.partial_rotary_factor ?? 1;
  if (rotaryShare !== 1) {
    throw new ModelError(
      file,
      `"partial_rotary_factor" is ${rotaryShare}; only whole heads are rotated here.`,
    );
  }
  const theta = rope.rope_theta ?? config.rope_theta ?? 10_000;
  return ropeInverseFrequencies(headSize, theta, readRopeScaling(file, rope));
}

function readRopeScaling(file: string, rope: NonNullable<z.infer<typeof ropeSchema>>): RopeScaling {
  const need = (
    key: 'factor' | 'low_freq_factor' | 'high_freq_factor' | 'original_max_position_embeddings',
  ) => {
    const value = rope[key];
    if (value === null || value === undefined) throw new ModelError(file, `the rope's "${key}" is missing.`);
    return value;
  };
  const kind = rope.rope_type ?? rope.type ?? 'default';
  switch (kind) {
    case 'default':
      return { kind: 'none' };
    case 'linear':
      return { kind: 'linear', factor: need('factor') };
    case 'llama3': {
      const [low, high] = [need('low_freq_factor'), need('high_freq_factor')];
      if (high <= low) throw new ModelError(file, 'the rope\'s "high_freq_factor" must exceed the low one.');
      return {
        kind: 'llama3',
        factor: need('factor'),
        lowFrequencyFactor: low,
        highFrequencyFactor: high,
        originalMaxPositionCount: need('original_max_position_embeddings'),
      };
    }
    default:
      throw new ModelError(
        file,
        `the rope scaling "${kind}" is not computed; default, linear and llama3 are.`,
      );
  }
}

/** How many positions full attention and the model's sliding window agree on; Infinity where there is no window. */
function windowTokens(
  file: string,
  architecture: LoadedModel['architecture'],
  config: Config,
  json: Record<string, unknown>,
): number {
  const odd = config.layer_types?.find((kind) => kind !== 'full_attention' && kind !== 'sliding_attention');
  if (odd !== undefined) throw new ModelError(file, `layers of type "${odd}" are not computed.`);
  // MistralConfig's default window is 4,096; an explicit null turns it off.
  const mistralWindow = 'sliding_window' in json ? config.sliding_window : 4_096;
  if (architecture === 'mistral') return mistralWindow ?? Infinity;
  const isWindowed = config.use_sliding_window || config.layer_types?.includes('sliding_attention');
  return isWindowed ? (config.sliding_window ?? Infinity) : Infinity;
}
