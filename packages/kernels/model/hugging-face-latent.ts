/**
 * What config.json says of multi-head latent attention (DeepSeek-V3): ranks and the parts of a head. Called by
 * hugging-face-config.ts; pure. Where a key is absent, transformers' own default holds.
 */
import { z } from 'zod';
import { ModelError } from './model-error.ts';

const size = (most: number) => z.int().min(1).max(most);
/** Also of what the cache holds: the latent and the rotated part of the key. */
const MOST_HEAD_SIZE = 1024;
const MOST_RANK = 1_000_000;

export const latentFields = {
  q_lora_rank: size(MOST_RANK).nullable().default(1536),
  kv_lora_rank: size(MOST_RANK).default(512),
  qk_nope_head_dim: size(MOST_HEAD_SIZE).default(128),
  qk_rope_head_dim: size(MOST_HEAD_SIZE).default(64),
  v_head_dim: size(MOST_HEAD_SIZE).default(128),
  rope_interleave: z.boolean().default(true),
  num_nextn_predict_layers: z.int().min(0).max(100).default(0),
};
export type LatentFields = z.infer<z.ZodObject<typeof latentFields>>;

/** Of queries and keys. @throws ModelError */
export function latentHeadSize(file: string, config: LatentFields): number {
  const headSize = config.qk_nope_head_dim + config.qk_rope_head_dim;
  if (config.qk_rope_head_dim % 2 !== 0 || headSize % 2 !== 0 || headSize > MOST_HEAD_SIZE) {
    throw new ModelError(
      file,
      `heads of ${config.qk_nope_head_dim} and ${config.qk_rope_head_dim} rotated elements are not even and up to ${MOST_HEAD_SIZE}.`,
    );
  }
  const cachedSize = config.kv_lora_rank + config.qk_rope_head_dim;
  if (cachedSize > MOST_HEAD_SIZE) {
    throw new ModelError(
      file,
      `a latent and its rotated part of ${cachedSize} elements are more than ${MOST_HEAD_SIZE}.`,
    );
  }
  return headSize;
}
