/**
 * Generates the tokens of an equality check on scratch KV blocks, a few prompts at a time: the plain way to run a model,
 * with no queue, no prefix cache, no stop tokens. Called by side-work.ts, one step after the other.
 */
import type { BatchEntry } from '@variator/scheduler/batch';
import type { CheckPrompt } from '../fleet/link-frames.ts';

interface Sequence {
  readonly prompt: CheckPrompt;
  readonly tokenIds: number[];
  readonly blockTable: readonly number[];
  computedTokenCount: number;
}

export const CHECK_PROMPTS_AT_ONCE = 4;
/** Prompt tokens in one step, so that live streams beside a check wait for a small step only. */
export const CHECK_CHUNK_TOKENS = 64;

/** Why a prompt cannot be checked here, in a sentence; '' when all can. */
export function promptsFault(
  prompts: readonly CheckPrompt[],
  scratchBlockCount: number,
  blockSize: number,
): string {
  for (const { promptTokenIds, maxTokens } of prompts) {
    if (promptTokenIds.length === 0) return 'A check prompt has no tokens.';
    if (!Number.isInteger(maxTokens) || maxTokens < 1) {
      return `A check prompt wants ${maxTokens} tokens; 1 or more can be generated.`;
    }
    if (blocksFor(promptTokenIds.length + maxTokens, blockSize) > scratchBlockCount) {
      return `A check prompt of ${promptTokenIds.length} tokens and ${maxTokens} to generate does not fit the ${scratchBlockCount * blockSize} tokens of scratch KV blocks.`;
    }
  }
  return '';
}

export class CheckGeneration {
  readonly #prompts: readonly CheckPrompt[];
  readonly #scratchBlockIds: readonly number[];
  readonly #blockSize: number;
  readonly #outputs: number[][] = [];
  #group: Sequence[] = [];
  #startedCount = 0;
  #inStep: Sequence[] = [];

  constructor(prompts: readonly CheckPrompt[], scratchBlockIds: readonly number[], blockSize: number) {
    this.#prompts = prompts;
    this.#scratchBlockIds = scratchBlockIds;
    this.#blockSize = blockSize;
  }

  /** The next step; empty when every prompt has its tokens. */
  next(): BatchEntry[] {
    if (this.#group.every(hasAllTokens)) this.#startGroup();
    const entries: BatchEntry[] = [];
    this.#inStep = [];
    let chunkTokens = CHECK_CHUNK_TOKENS;
    for (const sequence of this.#group) {
      if (hasAllTokens(sequence)) continue;
      const isDecode = sequence.computedTokenCount >= sequence.prompt.promptTokenIds.length;
      const remaining = sequence.tokenIds.length - sequence.computedTokenCount;
      const tokenCount = isDecode ? remaining : Math.min(remaining, chunkTokens);
      if (tokenCount === 0) continue;
      if (!isDecode) chunkTokens -= tokenCount;
      const start = sequence.computedTokenCount;
      const end = start + tokenCount;
      const { temperature, seed } = sequence.prompt;
      entries.push({
        sequenceId: `check-${this.#outputs.indexOf(sequence.tokenIds)}`,
        tokenIds: sequence.tokenIds.slice(start, end),
        contextLength: start,
        blockTable: sequence.blockTable.slice(0, blocksFor(end, this.#blockSize)),
        isSampled: end === sequence.tokenIds.length,
        sampling: { temperature, topP: 1, topK: 0, seed },
        kind: isDecode ? 'decode' : 'prefill',
      });
      this.#inStep.push(sequence);
    }
    return entries;
  }

  settle(entries: readonly BatchEntry[], sampledTokenIds: ArrayLike<number>): void {
    for (const [index, sequence] of this.#inStep.entries()) {
      const entry = entries[index];
      if (entry === undefined) throw new Error('A check was settled with entries of another step.');
      sequence.computedTokenCount += entry.tokenIds.length;
      if (!entry.isSampled) continue;
      const tokenId = sampledTokenIds[index] ?? -1;
      if (tokenId < 0) throw new Error('The device returned no token where one was due.');
      sequence.tokenIds.push(tokenId);
    }
    this.#inStep = [];
  }

  isDone(): boolean {
    return this.#startedCount === this.#prompts.length && this.#group.every(hasAllTokens);
  }

  /** The generated tokens of each prompt, in the order of the prompts. */
  outputs(): number[][] {
    return this.#outputs.map((tokenIds, index) =>
      tokenIds.slice(this.#prompts[index]?.promptTokenIds.length ?? 0),
    );
  }

  /** As many of the next prompts as the scratch blocks hold at once. */
  #startGroup(): void {
    this.#group = [];
    let usedBlockCount = 0;
    while (this.#group.length < CHECK_PROMPTS_AT_ONCE) {
      const prompt = this.#prompts[this.#startedCount];
      if (prompt === undefined) return;
      const blockCount = blocksFor(prompt.promptTokenIds.length + prompt.maxTokens, this.#blockSize);
      if (usedBlockCount + blockCount > this.#scratchBlockIds.length) return;
      const tokenIds = [...prompt.promptTokenIds];
      this.#group.push({
        prompt,
        tokenIds,
        blockTable: this.#scratchBlockIds.slice(usedBlockCount, usedBlockCount + blockCount),
        computedTokenCount: 0,
      });
      this.#outputs.push(tokenIds);
      this.#startedCount += 1;
      usedBlockCount += blockCount;
    }
  }
}

function hasAllTokens({ prompt, tokenIds }: Sequence): boolean {
  return tokenIds.length >= prompt.promptTokenIds.length + prompt.maxTokens;
}

function blocksFor(tokenCount: number, blockSize: number): number {
  return Math.ceil(tokenCount / blockSize);
}
