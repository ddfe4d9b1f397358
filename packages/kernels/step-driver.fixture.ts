/**
 * Runs sequences through the native kernels without a scheduler: every sequence owns consecutive KV blocks, and the
 * caller says which tokens a step computes. Used by tests and benches of the kernels alone; the engine's steps are
 * composed by packages/scheduler. Refuses sequences longer than it was made for.
 */
import { type AttentionVariantId, kvFormatOf, type LinearVariantId, splitTokensRange } from './catalogue.ts';
import type { LoadedModel } from './model/loaded-model.ts';
import {
  type KvCacheHandle,
  type LogitRules,
  type ModelHandle,
  NativeError,
  type NativeKernels,
  type Scoring,
  type StepOutput,
} from './native.ts';

export interface StepDriverOptions {
  readonly sequenceCount: number;
  readonly tokensPerSequence: number;
  readonly threadCount: number;
  readonly blockSize: number;
  /** attention.reference where nothing is said. */
  readonly attention?: AttentionVariantId;
}

/** What a step computes of one sequence: these tokens, onto what it has in the cache already. */
export interface Chunk {
  readonly sequence: number;
  readonly tokenIds: readonly number[];
  readonly isSampled: boolean;
  /** So many of the last tokens are drafts. */
  readonly draftCount?: number;
  readonly temperature?: number;
  readonly topP?: number;
  readonly topK?: number;
  readonly minP?: number;
  readonly seed?: number;
}

export interface StepSettings {
  readonly linear: LinearVariantId;
  readonly tunings?: Int32Array;
  readonly attentionTunings?: Int32Array;
  readonly threadCount?: number;
  readonly splitTokens?: number;
  readonly rules?: LogitRules;
  readonly scoring?: Scoring;
  readonly isLogitsWanted?: boolean;
}

export class StepDriver {
  readonly model: ModelHandle;
  readonly contextLengths: number[];
  readonly kvCache: KvCacheHandle;
  attention: AttentionVariantId;
  private readonly native: NativeKernels;
  private readonly options: StepDriverOptions;
  private readonly blocksPerSequence: number;

  constructor(
    native: NativeKernels,
    loaded: Pick<LoadedModel, 'shape' | 'tensors'>,
    options: StepDriverOptions,
  ) {
    this.native = native;
    this.options = options;
    this.blocksPerSequence = Math.ceil(options.tokensPerSequence / options.blockSize);
    this.contextLengths = Array.from({ length: options.sequenceCount }, () => 0);
    this.model = native.openModel(loaded.shape, loaded.tensors, options.threadCount);
    this.attention = options.attention ?? 'attention.reference';
    this.kvCache = native.createKvCache(
      this.model,
      this.blocksPerSequence * options.sequenceCount,
      options.blockSize,
      kvFormatOf(this.attention),
    );
  }

  async prepare(linear: LinearVariantId): Promise<void> {
    await this.native.prepareLinear(this.model, linear, null, null);
  }

  /** From the next step on; converts the cache where its format must change. */
  async attendBy(attention: AttentionVariantId): Promise<void> {
    const blockIds = Int32Array.from(
      { length: this.blocksPerSequence * this.options.sequenceCount },
      (_, index) => index,
    );
    await this.native.convertKvCache(this.model, this.kvCache, kvFormatOf(attention), blockIds);
    this.attention = attention;
  }

  /** Takes a sequence back to its first `length` tokens; their KV stays. */
  rewind(sequence: number, length: number): void {
    this.contextLengths[sequence] = length;
  }

  async step(chunks: readonly Chunk[], settings: StepSettings): Promise<StepOutput> {
    const count = chunks.length;
    const stride = this.blocksPerSequence;
    const tokenStarts = new Int32Array(count + 1);
    const contextLengths = new Int32Array(count);
    const blockTables = new Int32Array(count * stride);
    const seeds = new Uint32Array(count * 2);
    for (const [i, chunk] of chunks.entries()) {
      tokenStarts[i + 1] = (tokenStarts[i] ?? 0) + chunk.tokenIds.length;
      contextLengths[i] = this.contextLength(chunk.sequence);
      for (let b = 0; b < stride; b++) blockTables[i * stride + b] = chunk.sequence * stride + b;
      const seed = chunk.seed ?? 0;
      seeds[2 * i] = seed % 2 ** 32;
      seeds[2 * i + 1] = Math.floor(seed / 2 ** 32);
    }
    const output = await this.native.runStep(this.model, this.kvCache, {
      linear: settings.linear,
      tunings: settings.tunings ?? null,
      attentionTunings: settings.attentionTunings ?? null,
      attention: this.attention,
      splitTokens: settings.splitTokens ?? splitTokensRange.usual,
      threadCount: settings.threadCount ?? this.options.threadCount,
      tokenIds: Int32Array.from(chunks.flatMap((chunk) => [...chunk.tokenIds])),
      tokenStarts,
      contextLengths,
      blockTables,
      blockTableStride: stride,
      isSampled: Uint8Array.from(chunks, (chunk) => (chunk.isSampled ? 1 : 0)),
      draftCounts: Int32Array.from(chunks, (chunk) => chunk.draftCount ?? 0),
      temperatures: Float32Array.from(chunks, (chunk) => chunk.temperature ?? 0),
      topPs: Float32Array.from(chunks, (chunk) => chunk.topP ?? 1),
      topKs: Int32Array.from(chunks, (chunk) => chunk.topK ?? 0),
      minPs: Float32Array.from(chunks, (chunk) => chunk.minP ?? 0),
      seeds,
      rules: settings.rules ?? null,
      scoring: settings.scoring ?? null,
      isLogitsWanted: settings.isLogitsWanted ?? false,
    });
    for (const chunk of chunks) {
      this.contextLengths[chunk.sequence] = this.contextLength(chunk.sequence) + chunk.tokenIds.length;
    }
    return output;
  }

  /**
   * Computes one prompt per sequence, `chunkSize` tokens of each a step, then `tokenCount` greedy tokens, all sequences
   * in one batch. `forced` tokens are fed in place of the sampled ones. Returns sampled tokens and prompt-end logits.
   */
  async generate(
    prompts: readonly (readonly number[])[],
    tokenCount: number,
    settings: StepSettings & { readonly chunkSize: number; readonly forced?: readonly (readonly number[])[] },
  ): Promise<{ tokens: number[][]; logits: Float32Array[] }> {
    const tokens: number[][] = prompts.map(() => []);
    const logits: Float32Array[] = prompts.map(() => new Float32Array());
    const known = prompts.map((prompt) => [...prompt]);
    for (;;) {
      const chunks = known.flatMap((all, sequence): Chunk[] => {
        const from = this.contextLength(sequence);
        if ((tokens[sequence]?.length ?? 0) >= tokenCount) return [];
        const to = Math.min(all.length, from + settings.chunkSize);
        return [{ sequence, tokenIds: all.slice(from, to), isSampled: to === all.length }];
      });
      if (chunks.length === 0) return { tokens, logits };
      const isPromptEnd = chunks.some(
        ({ sequence, isSampled }) => isSampled && tokens[sequence]?.length === 0,
      );
      const output = await this.step(chunks, {
        ...settings,
        isLogitsWanted: (settings.isLogitsWanted ?? false) && isPromptEnd,
      });
      const width = (output.logits?.length ?? 0) / chunks.length;
      for (const [i, { sequence, isSampled }] of chunks.entries()) {
        const token = output.sampledTokenIds[i];
        const own = tokens[sequence];
        if (!isSampled || token === undefined || own === undefined) continue;
        if (own.length === 0 && output.logits !== null) {
          logits[sequence] = output.logits.slice(i * width, (i + 1) * width);
        }
        known[sequence]?.push(settings.forced?.[sequence]?.[own.length] ?? token);
        own.push(token);
      }
    }
  }

  close(): void {
    this.native.closeKvCache(this.kvCache);
    this.native.closeModel(this.model);
  }

  private contextLength(sequence: number): number {
    const length = this.contextLengths[sequence];
    if (length === undefined) throw new NativeError(`There is no sequence ${sequence}.`);
    return length;
  }
}
