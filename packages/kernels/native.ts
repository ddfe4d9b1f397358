/**
 * The only file that loads the native addon; every function is declared here in the order of native/addon.cc.
 * Called by the worker process alone. Numbers, typed arrays and opaque handles cross; absent values are null.
 * Arguments are checked on the native side before any launch; a violated contract throws a NativeError and runs nothing.
 */
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { AttentionVariantId, IsaLimit, KvFormat, LinearVariantId } from './catalogue.ts';
import type { MachineProbe } from './execution-path.ts';
import type { ModelShape, ModelTensors, TensorSource } from './model/model-shape.ts';

declare const modelBrand: unique symbol;
declare const kvCacheBrand: unique symbol;
/** A model whose weights are mapped. Owned by the caller until `closeModel`. */
export type ModelHandle = { readonly [modelBrand]: true };
/** A paged KV cache, drawn in native/kv_cache.h. Owned until `closeKvCache`. */
export type KvCacheHandle = { readonly [kvCacheBrand]: true };

/** What sequences ask of their logits before a token is drawn. Lists lie end to end; `...Starts` says where each begins. */
export interface LogitRules {
  readonly repetitionPenalties: Float32Array; // [n] 1 = off
  readonly frequencyPenalties: Float32Array; // [n] 0 = off
  readonly presencePenalties: Float32Array; // [n] 0 = off
  readonly countStarts: Int32Array; // [n + 1]
  readonly countedTokenIds: Int32Array; // [C] distinct within a sequence
  readonly tokenCounts: Int32Array; // [C] times generated; 0 = stands in the prompt only
  readonly biasStarts: Int32Array; // [n + 1]
  readonly biasTokenIds: Int32Array; // [B]
  readonly biases: Float32Array; // [B] added; -Infinity = never drawn
}

/** Log-probabilities of the model itself: before rules, temperature and truncation. */
export interface Scoring {
  /** -1: none wanted; otherwise so many of the likeliest beside the token itself. */
  readonly topCounts: Int32Array; // [n]
  /** The token that follows each computed one, or -1 where its log-probability is not wanted. */
  readonly scoredTokenIds: Int32Array; // [T]
}

/** The batch of a StepInput without the choice of kernels, which every kind of device has in its own words. */
export type StepBatch = Omit<
  StepInput,
  'linear' | 'tunings' | 'attention' | 'attentionTunings' | 'splitTokens' | 'threadCount'
>;

/**
 * One step, flat. n sequences, T tokens in all; sequence i computes tokens tokenStarts[i] .. tokenStarts[i+1] at
 * positions contextLengths[i] onward, attends to all before them, and where isSampled[i] is 1 yields one token.
 */
export interface StepInput {
  readonly linear: LinearVariantId;
  /** How the matrices are walked (dispatchTable of linear-dispatch.ts); null for the defaults. Changes no bit. */
  readonly tunings: Int32Array | null;
  /** Must be one for the KV cache's format. */
  readonly attention: AttentionVariantId;
  /** The same of attention (attentionTable of attention-dispatch.ts). */
  readonly attentionTunings: Int32Array | null;
  /** Positions of a split of a context, a power of two from 128 to 2048. Other bits than under another. */
  readonly splitTokens: number;
  readonly threadCount: number;
  readonly tokenIds: Int32Array; // [T]
  readonly tokenStarts: Int32Array; // [n + 1]
  readonly contextLengths: Int32Array; // [n] tokens already in the KV cache
  readonly blockTables: Int32Array; // [n, blockTableStride]
  readonly blockTableStride: number;
  readonly isSampled: Uint8Array; // [n]
  /**
   * How many of its last tokens are drafts, guesses of what it would yield: then as many rows more yield a token each, drawn
   * as if the drafts before it had been drawn. Only for sampled sequences without rules and scores.
   */
  readonly draftCounts: Int32Array; // [n]
  readonly temperatures: Float32Array; // [n] 0 = greedy
  readonly topPs: Float32Array; // [n] 1 = off
  readonly topKs: Int32Array; // [n] 0 = off
  readonly minPs: Float32Array; // [n] 0 = off
  /** Low and high 32 bits of each sequence's seed; the draw depends on (seed, position, logits) alone. */
  readonly seeds: Uint32Array; // [n, 2]
  /** null where no sequence of the step has any. */
  readonly rules: LogitRules | null;
  /** null where nobody wants log-probabilities. */
  readonly scoring: Scoring | null;
  /** True to receive the logits of the last token of every sequence (sampled or not). */
  readonly isLogitsWanted: boolean;
}

export interface StepOutput {
  /** By sequence, 1 + its draft count: what follows each row from the one before its drafts on; -1 where not sampled. */
  readonly sampledTokenIds: Int32Array;
  readonly logits: Float32Array | null; // [n, vocabulary] when wanted
  /**
   * By sequence: its scored tokens in order, then its sampled one. 1 + top count entries for each: the token itself, then
   * the likeliest, the lowest id first among equals. null without scoring.
   */
  readonly logprobTokenIds: Int32Array | null;
  readonly logprobs: Float32Array | null;
  /** Wall time of the native call, milliseconds. */
  readonly deviceMs: number;
  /** Threads that computed it: fewer than were asked for while other processes keep processors busy. */
  readonly threadCount: number;
  /** Share of the machine's CPU time used by other processes during the call, 0..1 (0 where unknown). */
  readonly foreignCpuShare: number;
}

/** n sequences with T rows in all, their keys and values of every token of context and of the rows themselves. */
export interface AttentionTrial {
  readonly attention: AttentionVariantId;
  readonly headCount: number;
  readonly kvHeadCount: number;
  readonly headSize: number;
  /** 0: the whole context. */
  readonly windowTokens: number;
  readonly blockSize: number;
  readonly splitTokens: number;
  readonly threadCount: number;
  readonly tuning: Int32Array; // [4] for all rows and contexts
  readonly tokenStarts: Int32Array; // [n + 1] rows
  readonly contextLengths: Int32Array; // [n] tokens before the rows
  readonly queries: Float32Array; // [T, headCount, headSize]
  readonly keys: Float32Array; // [tokens, kvHeadCount, headSize], sequence after sequence
  readonly values: Float32Array; // the same
}

export interface NativeKernels {
  /**
   * From now on the process runs as if the machine had no instructions beyond these: features are not probed, variants
   * not accepted, tiers not picked. For tests, and for comparing machines; 'all' is the default.
   */
  limitIsa(isa: IsaLimit): void;
  /** CPU features by CPUID and short in-situ speed probes (<= 300 ms in all). */
  probeMachine(threadCount: number): MachineProbe;
  /**
   * One linear layer by itself, on the calling thread: x [rowCount, columns] -> [rowCount, rows], walked by `tuning` (a
   * LinearTuning as four integers). For tests; nothing that serves calls it.
   */
  multiply(
    tensor: TensorSource,
    linear: LinearVariantId,
    x: Float32Array,
    rowCount: number,
    tuning: Int32Array,
  ): Float32Array;
  /** Maps the files and starts a pool of `maxThreadCount` threads. Throws NativeError when a tensor does not fit its file. */
  openModel(shape: ModelShape, tensors: ModelTensors, maxThreadCount: number): ModelHandle;
  /**
   * Packs what the variant needs, off the event loop; idempotent. `linear.reference` packs nothing. With a cache file the
   * panels are mapped from it where it holds exactly these (`cacheKey` tells the weights from all others), and kept in it
   * otherwise; a file that cannot be used or written is no fault.
   */
  prepareLinear(
    model: ModelHandle,
    linear: LinearVariantId,
    cacheFile: string | null,
    cacheKey: string | null,
  ): Promise<{ prepareMs: number; packedBytes: number; isFromCache: boolean }>;
  /** Sizes of the distinct matrices, [n, 2] rows and columns: the shapes that `StepInput.tunings` is by. */
  linearShapes(model: ModelHandle): Int32Array;
  /**
   * What the matrices of a prepared variant take under each of `tunings` [k, 4], in steps of `rowCount` rows: the model is
   * walked matrix after matrix, as a step does, with the tunings in random turns, until each has `sampleCount` samples for every shape,
   * or as many walks or `limitMs` are over. Steps wait for it.
   */
  timeLinear(
    model: ModelHandle,
    linear: LinearVariantId,
    threadCount: number,
    rowCount: number,
    tunings: Int32Array,
    sampleCount: number,
    limitMs: number,
  ): Promise<{
    /** [shapes, k] medians, microseconds a panel of 32 rows of the matrix; NaN without a sample. */
    readonly usPerPanel: Float32Array;
    readonly sampleCounts: Int32Array;
  }>;
  /** Attention by itself, on the calling thread and a team of its own. For tests; nothing that serves calls it. */
  attend(trial: AttentionTrial): Float32Array; // [T, headCount, headSize]
  /**
   * What a layer's attention takes under each of `tunings` [k, 4] (AttentionTuning as four integers), in steps of each of
   * `shapes` [s, 3]: sequences, rows of each, tokens of context before them; on a cache of its own. Shape after shape, until
   * each has `sampleCount` samples of every tuning; one gets half of what is left of `limitMs`. Steps wait for it.
   */
  timeAttention(
    model: ModelHandle,
    attention: AttentionVariantId,
    splitTokens: number,
    threadCount: number,
    shapes: Int32Array,
    tunings: Int32Array,
    sampleCount: number,
    limitMs: number,
  ): Promise<{
    /** [s, k] medians, microseconds; NaN without a sample. */
    readonly usPerLayer: Float32Array;
    readonly sampleCounts: Int32Array;
  }>;
  /** Memory for `blockCount` blocks of `blockSize` tokens in this format. */
  createKvCache(model: ModelHandle, blockCount: number, blockSize: number, kvFormat: KvFormat): KvCacheHandle;
  /** Blocks that the cache's memory holds in a format. */
  kvBlockCount(kvCache: KvCacheHandle, kvFormat: KvFormat): number;
  /**
   * Changes the format between two steps, off the event loop. Blocks in `blockIds` (ascending, below both formats' block
   * counts) keep their ids and, rounded, their contents; all others are lost.
   */
  convertKvCache(
    model: ModelHandle,
    kvCache: KvCacheHandle,
    kvFormat: KvFormat,
    blockIds: Int32Array,
  ): Promise<{ convertMs: number }>;
  /** Runs one step on the compute threads, off the event loop. One step at a time per model; a second call rejects. */
  runStep(model: ModelHandle, kvCache: KvCacheHandle, step: StepInput): Promise<StepOutput>;
  closeKvCache(kvCache: KvCacheHandle): void;
  closeModel(model: ModelHandle): void;
}

/** A broken contract at the border or a failed allocation; the message names the argument. */
export class NativeError extends Error {
  override readonly name = 'NativeError';
}

/** What build.mjs compiled. */
export const nativeFile = fileURLToPath(new URL('./build/variator_kernels.node', import.meta.url));

/**
 * Loads it.
 * @throws NativeError where it has not been built, or was built for another machine
 */
export function loadNative(): NativeKernels {
  const require = createRequire(import.meta.url);
  let addon: { bind(errorClass: typeof NativeError): NativeKernels };
  try {
    addon = require(nativeFile);
  } catch (cause) {
    const reason = cause instanceof Error ? (cause.message.split('\n')[0] ?? '') : String(cause);
    throw new NativeError(`The native part is not there (${reason}). Build it with: npm run build:native`, {
      cause,
    });
  }
  return addon.bind(NativeError);
}
