/**
 * How config.json wants positions rotated: `rope_theta` beside `rope_scaling` (the old style) or `rope_parameters` (the
 * new one) -> frequencies and attention factor. Called by hugging-face-config.ts; pure. Absent keys mean what they mean
 * in transformers. Refuses by name every scaling and every key that would compute something else.
 */
import { z } from 'zod';
import { ModelError } from './model-error.ts';
import type { ModelShape } from './model-shape.ts';
import { checkRope, type RopeScaling, ropeInverseFrequencies, yarnAttentionFactor } from './rope.ts';

const positive = z.number().positive();
const count = z.int().min(1).max(1e9);
const MOST_POSITIONS = 100_000_000;

export const ropeSchema = z
  .looseObject({
    type: z.string().nullish(),
    rope_type: z.string().nullish(),
    rope_theta: positive.nullish(),
    partial_rotary_factor: z.number().nullish(),
    factor: positive.max(1e6).nullish(),
    original_max_position_embeddings: count.nullish(),
    low_freq_factor: positive.nullish(),
    high_freq_factor: positive.nullish(),
    attention_factor: positive.max(100).nullish(),
    beta_fast: positive.nullish(),
    beta_slow: positive.nullish(),
    mscale: z.number().min(0).max(100).nullish(),
    mscale_all_dim: z.number().min(0).max(100).nullish(),
    truncate: z.boolean().nullish(),
    /** Says how the model was made; changes nothing. */
    finetuned: z.boolean().nullish(),
  })
  .nullish();
type Rope = NonNullable<z.infer<typeof ropeSchema>>;

/** The keys of config.json that speak of positions. */
export interface RopeConfig {
  readonly rope_theta?: number | null | undefined;
  readonly rope_scaling?: Rope | null | undefined;
  readonly rope_parameters?: Rope | null | undefined;
  readonly partial_rotary_factor?: number | null | undefined;
  readonly original_max_position_embeddings?: number | null | undefined;
  readonly max_position_embeddings: number;
}

export type HuggingFaceRope = Pick<
  ModelShape,
  'ropeInverseFrequencies' | 'ropeAttentionFactor' | 'maxPositionCount'
>;

/**
 * What DeepSeek's attention multiplies scores by beside 1 / sqrt(head size): the square of YaRN's factor by
 * "mscale_all_dim", which is 1 where the config does not name it.
 */
export function latentScoreFactor(file: string, config: RopeConfig): number {
  const rope: Rope = { ...config.rope_scaling, ...config.rope_parameters };
  const scaling = readScaling(file, rope, config);
  if (scaling.kind !== 'yarn' || !rope.mscale_all_dim) return 1;
  return yarnAttentionFactor(scaling.factor, rope.mscale_all_dim) ** 2;
}

/** @throws ModelError */
export function readRope(file: string, config: RopeConfig, headSize: number): HuggingFaceRope {
  const rope: Rope = { ...config.rope_scaling, ...config.rope_parameters };
  if (Object.values(rope).some((value) => typeof value === 'object' && value !== null)) {
    throw new ModelError(file, 'its rope differs from layer to layer, which is not computed.');
  }
  const stranger = Object.keys(rope).find((key) => !(key in ropeSchema.unwrap().unwrap().shape));
  if (stranger !== undefined) {
    throw new ModelError(file, `the rope's "${stranger}" is not known, and may change what is computed.`);
  }
  const rotaryShare = rope.partial_rotary_factor ?? config.partial_rotary_factor ?? 1;
  if (rotaryShare !== 1) {
    throw new ModelError(
      file,
      `"partial_rotary_factor" is ${rotaryShare}; only whole heads are rotated here.`,
    );
  }
  const theta = rope.rope_theta ?? config.rope_theta ?? 10_000;
  if (theta === 1) throw new ModelError(file, '"rope_theta" is 1, which turns every pair alike.');
  const scaling = readScaling(file, rope, config);
  const read: HuggingFaceRope = {
    ropeInverseFrequencies: ropeInverseFrequencies(headSize, theta, scaling),
    ropeAttentionFactor: scaling.kind === 'yarn' ? attentionFactor(rope, scaling.factor) : 1,
    // A YaRN config may keep the length the model was first trained on; the scaling is there to go beyond it.
    maxPositionCount:
      scaling.kind === 'yarn'
        ? Math.max(
            config.max_position_embeddings,
            Math.floor(scaling.originalMaxPositionCount * scaling.factor),
          )
        : config.max_position_embeddings,
  };
  checkRope(file, read);
  if (read.maxPositionCount > MOST_POSITIONS) {
    throw new ModelError(file, `its rope stretches the context to ${read.maxPositionCount} tokens.`);
  }
  return read;
}

function readScaling(file: string, rope: Rope, config: RopeConfig): RopeScaling {
  const need = (key: 'factor' | 'low_freq_factor' | 'high_freq_factor') => {
    const value = rope[key];
    if (value === null || value === undefined) throw new ModelError(file, `the rope's "${key}" is missing.`);
    return value;
  };
  const originalMaxPositionCount =
    config.original_max_position_embeddings ??
    rope.original_max_position_embeddings ??
    config.max_position_embeddings;
  const kind = rope.rope_type ?? rope.type ?? 'default';
  switch (kind) {
    case 'default':
      return { kind: 'none' };
    case 'dynamic':
      // Within the length the model was made for, dynamic NTK scaling is none; beyond it every new token would turn the
      // keys of all tokens before it, and no sequence goes there.
      return { kind: 'none' };
    case 'linear':
      return { kind: 'linear', factor: need('factor') };
    case 'yarn': {
      const factor = rope.factor ?? config.max_position_embeddings / originalMaxPositionCount;
      const [betaFast, betaSlow] = [rope.beta_fast ?? 32, rope.beta_slow ?? 1];
      if (betaFast < betaSlow)
        throw new ModelError(file, 'the rope\'s "beta_fast" is below its "beta_slow".');
      return {
        kind: 'yarn',
        factor,
        betaFast,
        betaSlow,
        originalMaxPositionCount,
        isTruncated: rope.truncate ?? true,
      };
    }
    case 'llama3': {
      const [low, high] = [need('low_freq_factor'), need('high_freq_factor')];
      if (high <= low) throw new ModelError(file, 'the rope\'s "high_freq_factor" must exceed the low one.');
      return {
        kind: 'llama3',
        factor: need('factor'),
        lowFrequencyFactor: low,
        highFrequencyFactor: high,
        originalMaxPositionCount,
      };
    }
    default:
      throw new ModelError(
        file,
        `the rope scaling "${kind}" is not computed; default, linear, dynamic, yarn and llama3 are.`,
      );
  }
}

function attentionFactor(rope: Rope, factor: number): number {
  if (rope.attention_factor !== null && rope.attention_factor !== undefined) return rope.attention_factor;
  if (!rope.mscale || !rope.mscale_all_dim) return yarnAttentionFactor(factor);
  return yarnAttentionFactor(factor, rope.mscale) / yarnAttentionFactor(factor, rope.mscale_all_dim);
}
