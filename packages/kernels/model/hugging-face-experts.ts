/**
 * What config.json says of experts: how many, which layers have them, how a token's are chosen. Called by
 * hugging-face-config.ts; pure. Where a key is absent, transformers' own default holds. Refuses by name what would choose
 * or weigh experts otherwise.
 */
import { z } from 'zod';
import { checkedExperts, MOST_EXPERTS } from './expert-shape.ts';
import { ModelError } from './model-error.ts';
import type { ExpertShape } from './model-shape.ts';

const count = (most: number) => z.int().min(1).max(most);

const MOST_SIZE = 4_000_000;

export const qwen3MoeFields = {
  num_experts: count(MOST_EXPERTS).nullish(),
  num_local_experts: count(MOST_EXPERTS).nullish(),
  num_experts_per_tok: count(MOST_EXPERTS).default(8),
  moe_intermediate_size: count(MOST_SIZE).default(768),
  norm_topk_prob: z.boolean().default(false),
  decoder_sparse_step: count(1_000).default(1),
  mlp_only_layers: z.array(z.int()).nullish(),
};
export type Qwen3MoeFields = z.infer<z.ZodObject<typeof qwen3MoeFields>>;

/** DeepSeek's own names for how experts are scored and chosen; transformers knows one way and does not read them. */
export const deepseekV3Fields = {
  n_routed_experts: count(MOST_EXPERTS).default(256),
  n_shared_experts: z.int().min(0).max(MOST_EXPERTS).nullable().default(1),
  num_experts_per_tok: count(MOST_EXPERTS).default(8),
  moe_intermediate_size: count(MOST_SIZE).default(2048),
  first_k_dense_replace: z.int().min(0).max(1_000).default(3),
  moe_layer_freq: z.int().default(1),
  n_group: count(MOST_EXPERTS).default(8),
  topk_group: count(MOST_EXPERTS).default(4),
  norm_topk_prob: z.boolean().default(true),
  routed_scaling_factor: z.number().positive().max(1e6).default(2.5),
  scoring_func: z.string().default('sigmoid'),
  topk_method: z.string().default('noaux_tc'),
};
export type DeepseekV3Fields = z.infer<z.ZodObject<typeof deepseekV3Fields>>;

export interface HuggingFaceExperts {
  readonly experts: ExpertShape;
  readonly isSparse: (layer: number) => boolean;
}

/** @throws ModelError */
export function readQwen3MoeExperts(file: string, config: Qwen3MoeFields): HuggingFaceExperts {
  const expertCount = config.num_experts ?? config.num_local_experts ?? 128;
  const dense = new Set(config.mlp_only_layers ?? []);
  const step = config.decoder_sparse_step;
  return {
    experts: checkedExperts(file, {
      expertCount,
      expertsPerToken: config.num_experts_per_tok,
      intermediateSize: config.moe_intermediate_size,
      sharedIntermediateSize: 0,
      scoring: 'softmax',
      groupCount: 1,
      groupsPerToken: 1,
      isNormalised: config.norm_topk_prob,
      scale: 1,
    }),
    isSparse: (layer) => !dense.has(layer) && (layer + 1) % step === 0,
  };
}

/** @throws ModelError */
export function readDeepseekV3Experts(file: string, config: DeepseekV3Fields): HuggingFaceExperts {
  const computed = { scoring_func: 'sigmoid', topk_method: 'noaux_tc', moe_layer_freq: 1 } as const;
  for (const key of ['scoring_func', 'topk_method', 'moe_layer_freq'] as const) {
    if (config[key] === computed[key]) continue;
    throw new ModelError(file, `"${key}" is ${config[key]}; only ${computed[key]} is computed.`);
  }
  const sharedIntermediateSize = (config.n_shared_experts ?? 0) * config.moe_intermediate_size;
  if (sharedIntermediateSize > MOST_SIZE) {
    throw new ModelError(
      file,
      `its shared experts have ${sharedIntermediateSize} rows; ${MOST_SIZE} are the limit.`,
    );
  }
  return {
    experts: checkedExperts(file, {
      expertCount: config.n_routed_experts,
      expertsPerToken: config.num_experts_per_tok,
      intermediateSize: config.moe_intermediate_size,
      sharedIntermediateSize,
      scoring: 'sigmoid',
      groupCount: config.n_group,
      groupsPerToken: config.topk_group,
      isNormalised: config.norm_topk_prob,
      scale: config.routed_scaling_factor,
    }),
    isSparse: (layer) => layer >= config.first_k_dense_replace,
  };
}
