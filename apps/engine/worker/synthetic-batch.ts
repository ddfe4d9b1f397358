/**
 * Makes the batch of one calibration case: random tokens, contexts as long as asked, KV blocks from the scratch ones.
 * Called by side-work.ts. Every entry writes to blocks of its own; the context before them is read from the scratch
 * blocks in turn, so a long context needs few of them (and may be a little kinder to the CPU's caches than a real one).
 */
import type { BatchEntry } from '@variator/scheduler/batch';
import type { CalibrationCase } from '../fleet/link-frames.ts';

export interface ScratchBlocks {
  readonly blockIds: readonly number[];
  readonly blockSize: number;
  readonly vocabularySize: number;
}

const greedy = { temperature: 0, topP: 1, topK: 0, seed: 0 } as const;

interface Part {
  readonly kind: 'decode' | 'prefill';
  readonly contextLength: number;
  readonly tokenCount: number;
}

/** Why the case cannot be timed here, in a sentence; '' when it can. */
export function caseFault(one: CalibrationCase, scratch: ScratchBlocks): string {
  const counts = Object.entries(one).filter(([, value]) => !Number.isSafeInteger(value) || value < 0);
  if (counts.length > 0) {
    return `A calibration case counts whole numbers of 0 or more; ${counts.map(([name]) => name).join(', ')} is not one.`;
  }
  if (one.decodeSequenceCount + one.prefillTokens === 0)
    return 'A calibration case without a token to compute.';
  const blockCount = parts(one).reduce((sum, part) => sum + writtenBlockCount(part, scratch.blockSize), 0);
  return blockCount > scratch.blockIds.length
    ? `A calibration case of ${one.decodeSequenceCount} decoding sequences and ${one.prefillTokens} prefill tokens writes ${blockCount} KV blocks; ${scratch.blockIds.length} are reserved for it.`
    : '';
}

/** The case as a batch; `random` gives numbers in [0, 1). */
export function syntheticBatch(
  one: CalibrationCase,
  scratch: ScratchBlocks,
  random: () => number,
): BatchEntry[] {
  const { blockIds, blockSize, vocabularySize } = scratch;
  const blockAt = (index: number): number => blockIds[index % blockIds.length] ?? 0;
  let nextWritten = 0;
  return parts(one).map((part, index) => {
    const readCount = Math.floor(part.contextLength / blockSize);
    const written = Array.from({ length: writtenBlockCount(part, blockSize) }, (_, at) =>
      blockAt(nextWritten + at),
    );
    nextWritten += written.length;
    return {
      sequenceId: `calibration-${index}`,
      tokenIds: Array.from({ length: part.tokenCount }, () => Math.floor(random() * vocabularySize)),
      contextLength: part.contextLength,
      blockTable: [...Array.from({ length: readCount }, (_, at) => blockAt(nextWritten + at)), ...written],
      isSampled: true,
      sampling: greedy,
      kind: part.kind,
    };
  });
}

/** Decoding sequences share the case's context evenly; what is prefilled is one sequence. */
function parts(one: CalibrationCase): Part[] {
  const { decodeSequenceCount, decodeContextTokens, prefillTokens, prefillContextTokens } = one;
  const decodes = Array.from({ length: decodeSequenceCount }, (_, index): Part => {
    const contextLength = Math.floor((decodeContextTokens + index) / decodeSequenceCount);
    return { kind: 'decode', contextLength, tokenCount: 1 };
  });
  return prefillTokens === 0
    ? decodes
    : [...decodes, { kind: 'prefill', contextLength: prefillContextTokens, tokenCount: prefillTokens }];
}

function writtenBlockCount({ contextLength, tokenCount }: Part, blockSize: number): number {
  return Math.ceil((contextLength + tokenCount) / blockSize) - Math.floor(contextLength / blockSize);
}
