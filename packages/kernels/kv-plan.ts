/**
 * How many KV blocks a model gets out of the memory it was given, and the longest sequence they allow. Pure; the worker
 * sizes its cache by it and the gateway refuses prompts by it, so that both say the same.
 */
import { cachedShapeOf, type ModelShape } from './model/model-shape.ts';

/** Tokens a KV block holds. */
export const KV_BLOCK_SIZE = 16;
/** Blocks outside the scheduler's pool, for calibration and equality checks. */
export const SCRATCH_BLOCK_COUNT = 64;
/** Most sequences that a CPU's worker runs at once; what another device runs, its envelope says. */
export const MAX_RUNNING_COUNT = 64;

const LEAST_USEFUL_TOKENS = 256;

export interface KvPlan {
  /** Blocks of the scheduler's pool. */
  readonly blockCount: number;
  readonly kvBytesPerToken: number;
  readonly maxModelLenTokens: number;
}

export interface KvPlanOptions {
  readonly kvMemoryBytes: number;
  /** Null: what the model was made for. */
  readonly maxModelLenTokens: number | null;
  /** Most sequences that the device runs at once; a CPU's where nothing is said. */
  readonly maxRunningCount?: number;
  /** Of a number in the cache; float32 where nothing is said. */
  readonly elementBytes?: 2 | 4;
}

/** The KV memory cannot hold one useful sequence. */
export class KvPlanError extends Error {
  override readonly name = 'KvPlanError';
}

/** @throws KvPlanError with a sentence that names the option */
export function kvPlan(shape: ModelShape, options: KvPlanOptions): KvPlan {
  const { maxRunningCount = MAX_RUNNING_COUNT, elementBytes = 4 } = options;
  const { headCount, keySize, valueSize } = cachedShapeOf(shape);
  const kvBytesPerToken = elementBytes * shape.layerCount * headCount * (keySize + valueSize);
  const wanted = Math.min(shape.maxPositionCount, options.maxModelLenTokens ?? shape.maxPositionCount);
  const affordable =
    Math.floor(options.kvMemoryBytes / (kvBytesPerToken * KV_BLOCK_SIZE)) - SCRATCH_BLOCK_COUNT;
  const blockCount = Math.min(affordable, maxRunningCount * Math.ceil(wanted / KV_BLOCK_SIZE));
  const tokens = Math.max(0, blockCount * KV_BLOCK_SIZE);
  if (tokens < Math.min(wanted, LEAST_USEFUL_TOKENS)) {
    throw new KvPlanError(
      `The KV memory holds ${tokens} tokens of this model; raise --kv-memory (VARIATOR_KV_MEMORY).`,
    );
  }
  return { blockCount, kvBytesPerToken, maxModelLenTokens: Math.min(wanted, tokens) };
}
