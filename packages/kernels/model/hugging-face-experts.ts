/**
 * What config.json says of experts: how many, which layers have them, how a token's are chosen. Called by
 * hugging-face-config.ts; pure. Where a key is absent, transformers' own default holds. Refuses by name what would choose
 * or weigh experts otherwise.
 */
import { z } from 'zod';
import { checkedExperts, MOST_EXPERTS } from './expert-shape.ts';
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
