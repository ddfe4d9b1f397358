/**
 * A device on paper, for this package's tests alone: its KV cells chain (token, numerics, everything before) through the
 * block table, and a token is a pure function of (seed, position, chain). A wrong block table, an overwritten block or a block
 * reused across numerics changes the tokens that come out, exactly as on a real device.
 */
import type { Batch } from './batch.ts';
import type { SequenceSpec } from './sequence.ts';

interface Cell {
  readonly tokenId: number;
  readonly numerics: number;
  readonly chain: number;
}

const vocabularySize = 50;

const mix = (a: number, b: number): number => {
  let hash = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
};

const extend = (chain: number, tokenId: number, numerics: number): number =>
  mix(mix(chain, numerics), tokenId);

const textHash = (text: string): number =>
  [...text].reduce((hash, character) => mix(hash, character.codePointAt(0) ?? 0), 1);

const sample = (seed: number, position: number, chain: number): number =>
  mix(mix(seed, position), chain) % vocabularySize;

/** What the device answers to a sequence that has it to itself, for ever: the judge of every batch. */
export function tokensAlone(spec: SequenceSpec, numericsId: string, count: number): number[] {
  const numerics = textHash(numericsId);
  let chain = 0;
  for (const tokenId of spec.promptTokenIds) chain = extend(chain, tokenId, numerics);
  const tokenIds: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const tokenId = sample(spec.sampling.seed, spec.promptTokenIds.length + index, chain);
    tokenIds.push(tokenId);
    chain = extend(chain, tokenId, numerics);
  }
  return tokenIds;
}

export class PaperDevice {
  readonly #blockSize: number;
  readonly #cells = new Map<number, Cell>();

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  /** @throws Error where an entry breaks the border's contract */
  run(batch: Batch, numericsId: string): number[] {
    const written = new Set<number>();
    const numerics = textHash(numericsId);
    return batch.entries.map((entry) => {
      const { contextLength, tokenIds, blockTable } = entry;
      const length = contextLength + tokenIds.length;
      if (tokenIds.length < 1) throw new Error('An entry without tokens.');
      if (blockTable.length !== Math.ceil(length / this.#blockSize)) {
        throw new Error(`${blockTable.length} blocks of ${this.#blockSize} for ${length} tokens.`);
      }
      const slotOf = (position: number): number =>
        (blockTable[Math.floor(position / this.#blockSize)] ?? -1) * this.#blockSize +
        (position % this.#blockSize);
      let chain = 0;
      for (let position = 0; position < contextLength; position += 1) {
        const cell = this.#cells.get(slotOf(position));
        if (cell === undefined) throw new Error('A context token was never computed.');
        chain = extend(chain, cell.tokenId, cell.numerics);
        if (cell.chain !== chain) throw new Error('A context is torn.');
      }
      for (const [offset, tokenId] of tokenIds.entries()) {
        const slot = slotOf(contextLength + offset);
        if (written.has(slot)) throw new Error('Two entries write one KV slot.');
        written.add(slot);
        chain = extend(chain, tokenId, numerics);
        this.#cells.set(slot, { tokenId, numerics, chain });
      }
      return entry.isSampled ? sample(entry.sampling.seed, length, chain) : -1;
    });
  }
}

/** Numbers in [0, 1), the same for the same seed (mulberry32). */
export function seededRandom(seed: number): () => number {
  let state = seed >>> 0;
  return () => {
    state = (state + 0x6d2b79f5) >>> 0;
    let mixed = Math.imul(state ^ (state >>> 15), 1 | state);
    mixed = (mixed + Math.imul(mixed ^ (mixed >>> 7), 61 | mixed)) ^ mixed;
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32;
  };
}
