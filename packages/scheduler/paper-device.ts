/**
 * A device on paper, for this package's tests alone: its KV cells chain (token, numerics, everything before) through the
 * block table, and a token is a pure function of (seed, position, chain, what penalties count, what is banned); so are its
 * log-probabilities. A wrong block table, an overwritten block or a block reused across numerics changes the tokens that
 * come out, exactly as on a real device.
 */
import type { Batch, BatchEntry } from './batch.ts';
import type { SequenceSpec, TokenLogprobs } from './sequence.ts';

interface Cell {
  readonly tokenId: number;
  readonly numerics: number;
  readonly chain: number;
}

const vocabularySize = 50;
export const REPETITIVE_SEED = 3;

const mix = (a: number, b: number): number => {
  let hash = Math.imul(a ^ 0x9e3779b9, 0x85ebca6b) ^ Math.imul(b + 0x7f4a7c15, 0xc2b2ae35);
  hash = Math.imul(hash ^ (hash >>> 15), 0x2c1b3c6d);
  return (hash ^ (hash >>> 13)) >>> 0;
};

const extend = (chain: number, tokenId: number, numerics: number): number =>
  mix(mix(chain, numerics), tokenId);

const textHash = (text: string): number =>
  [...text].reduce((hash, character) => mix(hash, character.codePointAt(0) ?? 0), 1);

function sample(
  seed: number,
  position: number,
  chain: number,
  counted: Iterable<readonly [tokenId: number, count: number]>,
  banned: readonly number[],
): number {
  // This seed's speaker repeats itself, whatever was said: its next words can be guessed.
  let hash = seed === REPETITIVE_SEED ? position % 4 : mix(mix(seed, position), chain);
  for (const [tokenId, count] of counted) hash = (hash + mix(tokenId, count)) >>> 0;
  let token = hash % vocabularySize;
  while (banned.includes(token)) token = (token + 1) % vocabularySize;
  return token;
}

/** Of a token where the chain has come to. */
function paperLogprobs(chain: number, tokenId: number, topCount: number): TokenLogprobs {
  const logprobOf = (id: number): number => -(mix(chain, id) % 1000) / 100;
  return {
    logprob: logprobOf(tokenId),
    top: Array.from({ length: topCount }, (_, rank): [number, number] => [rank, logprobOf(rank)]),
  };
}

/** What the device answers to a sequence that has it to itself, for ever: the judge of every batch. */
export function tokensAlone(spec: SequenceSpec, numericsId: string, count: number): number[] {
  const numerics = textHash(numericsId);
  let chain = 0;
  for (const tokenId of spec.promptTokenIds) chain = extend(chain, tokenId, numerics);
  const { seed, minTokens = 0 } = spec.sampling;
  const counted = new Map<number, number>();
  if ((spec.sampling.repetitionPenalty ?? 1) !== 1) {
    for (const tokenId of spec.promptTokenIds) counted.set(tokenId, 0);
  }
  const isCounting =
    counted.size > 0 ||
    (spec.sampling.presencePenalty ?? 0) !== 0 ||
    (spec.sampling.frequencyPenalty ?? 0) !== 0;
  const tokenIds: number[] = [];
  for (let index = 0; index < count; index += 1) {
    const banned = index < minTokens ? spec.stopTokenIds : [];
    const tokenId = sample(seed, spec.promptTokenIds.length + index, chain, counted, banned);
    tokenIds.push(tokenId);
    if (isCounting) counted.set(tokenId, (counted.get(tokenId) ?? 0) + 1);
    chain = extend(chain, tokenId, numerics);
  }
  return tokenIds;
}

/** The log-probabilities of all given tokens but the first, by the device alone. */
export function logprobsAlone(
  tokenIds: readonly number[],
  numericsId: string,
  topCount: number,
): TokenLogprobs[] {
  const numerics = textHash(numericsId);
  let chain = 0;
  return tokenIds.slice(0, -1).map((tokenId, index) => {
    chain = extend(chain, tokenId, numerics);
    return paperLogprobs(chain, tokenIds[index + 1] ?? -1, topCount);
  });
}

export class PaperDevice {
  readonly #blockSize: number;
  readonly #cells = new Map<number, Cell>();

  constructor(blockSize: number) {
    this.#blockSize = blockSize;
  }

  /** The cache changes its format: what is in other blocks is lost. */
  keepOnly(blockIds: readonly number[]): void {
    const kept = new Set(blockIds);
    for (const place of this.#cells.keys()) {
      if (!kept.has(Math.floor(place / this.#blockSize))) this.#cells.delete(place);
    }
  }

  /** What a step answers. @throws Error where an entry breaks the border's contract */
  run(
    batch: Batch,
    numericsId: string,
  ): { sampledTokenIds: number[]; afterDraftTokenIds: (number[] | null)[]; logprobs: TokenLogprobs[][] } {
    const written = new Set<number>();
    const numerics = textHash(numericsId);
    const logprobs: TokenLogprobs[][] = [];
    const afterDraftTokenIds: (number[] | null)[] = [];
    const sampledTokenIds = batch.entries.map((entry) => {
      const own: TokenLogprobs[] = [];
      logprobs.push(own);
      const { logprobCount } = entry.sampling;
      const { contextLength, tokenIds, blockTable } = entry;
      const length = contextLength + tokenIds.length;
      if (tokenIds.length < 1) throw new Error('An entry without tokens.');
      if (blockTable.length !== Math.ceil(length / this.#blockSize)) {
        throw new Error(`${blockTable.length} blocks of ${this.#blockSize} for ${length} tokens.`);
      }
      const slotOf = (position: number): number =>
        (blockTable[Math.floor(position / this.#blockSize)] ?? -1) * this.#blockSize +
        (position % this.#blockSize);
      const { draftCount = 0 } = entry;
      const drawn: number[] = [];
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
        const scored = entry.scoredTokenIds?.[offset] ?? -1;
        if (scored >= 0 && logprobCount !== undefined) own.push(paperLogprobs(chain, scored, logprobCount));
        if (!entry.isSampled || offset < tokenIds.length - 1 - draftCount) continue;
        const place = contextLength + offset + 1;
        drawn.push(sample(entry.sampling.seed, place, chain, countedOf(entry), entry.bannedTokenIds ?? []));
      }
      const [token = -1, ...afterDrafts] = drawn;
      afterDraftTokenIds.push(draftCount === 0 ? null : afterDrafts);
      if (!entry.isSampled) return -1;
      if (logprobCount !== undefined) own.push(paperLogprobs(chain, token, logprobCount));
      return token;
    });
    return { sampledTokenIds, afterDraftTokenIds, logprobs };
  }
}

function countedOf({ tokenCounts }: BatchEntry): [number, number][] {
  if (tokenCounts === undefined) return [];
  return Array.from(tokenCounts.tokenIds.subarray(0, tokenCounts.length), (tokenId, place) => [
    tokenId,
    tokenCounts.counts[place] ?? 0,
  ]);
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
