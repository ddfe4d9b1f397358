/**
 * Gives and takes KV blocks to and from sequences, and lets equal prefixes share them. Called by the scheduler and by
 * compose.ts. Blocks are shared only when full, so nobody ever writes into a block that another sequence reads.
 */
import { type BlockHashing, UNSHARED } from './block-hashing.ts';
import { KvBlocks } from './kv-blocks.ts';
import { isStillScored, type OpenSequence } from './open-sequence.ts';
import { PrefixCache } from './prefix-cache.ts';

export class BlockTables {
  readonly blockSize: number;
  readonly #blocks: KvBlocks;
  readonly #cache: PrefixCache;
  readonly #hashing: BlockHashing;
  #root: { readonly numericsId: string; readonly cacheSalt: string; readonly hash: string } | null = null;

  constructor(blockCount: number, blockSize: number, hashing: BlockHashing) {
    this.blockSize = blockSize;
    this.#cache = new PrefixCache(blockCount);
    this.#hashing = hashing;
    this.#blocks = new KvBlocks(blockCount);
  }

  get blockCount(): number {
    return this.#blocks.blockCount;
  }

  get usedCount(): number {
    return this.#blocks.usedCount;
  }

  get availableCount(): number {
    return this.#blocks.availableCount;
  }

  blocksFor(tokenCount: number): number {
    return Math.ceil(tokenCount / this.blockSize);
  }

  /** Tokens the sequence could have in the cache if it got every block that is available now. */
  reachableTokenCount(sequence: OpenSequence): number {
    return (sequence.blockTable.length + this.availableCount) * this.blockSize;
  }

  /**
   * Starts the table of an admitted sequence with the blocks that hold its longest known prefix, at most up to its last
   * token, which is always computed; with none where the prompt is still to be scored. Returns the tokens found.
   */
  attachPrefix(sequence: OpenSequence, numericsId: string): number {
    if (sequence.kvNumericsId !== numericsId) {
      sequence.kvNumericsId = numericsId;
      sequence.blockHashes = [];
    }
    sequence.isKvMixed = false;
    const mostBlocks = isStillScored(sequence)
      ? 0
      : Math.floor((sequence.tokenIds.length - 1) / this.blockSize);
    for (let index = 0; index < mostBlocks; index += 1) {
      const blockId = this.#cache.find(this.#hashOf(sequence, index));
      if (blockId === null) break;
      this.#blocks.retain(blockId);
      sequence.blockTable.push(blockId);
    }
    sequence.offeredBlockCount = sequence.blockTable.length;
    sequence.computedTokenCount = sequence.blockTable.length * this.blockSize;
    return sequence.computedTokenCount;
  }

  /** Lengthens the table to hold `tokenCount` tokens; false, and nothing changed, where blocks are missing. */
  grow(sequence: OpenSequence, tokenCount: number): boolean {
    const missing = this.blocksFor(tokenCount) - sequence.blockTable.length;
    if (missing > this.availableCount) return false;
    for (let count = 0; count < missing; count += 1) {
      const blockId = this.#blocks.allocate();
      if (blockId === null) throw new Error('The KV block pool has fewer blocks than it counted.');
      this.#cache.forget(blockId);
      sequence.blockTable.push(blockId);
    }
    return true;
  }

  /** Gives back what is beyond `tokenCount` tokens: room for guesses that were wrong. */
  shrink(sequence: OpenSequence, tokenCount: number): void {
    while (sequence.blockTable.length > this.blocksFor(tokenCount)) {
      const blockId = sequence.blockTable.pop();
      if (blockId !== undefined) this.#blocks.release(blockId, 'discard');
    }
  }

  /** Lets others find the blocks that the last step filled. */
  offerFullBlocks(sequence: OpenSequence): void {
    if (sequence.isKvMixed) return;
    const fullBlockCount = Math.floor(sequence.computedTokenCount / this.blockSize);
    for (let index = sequence.offeredBlockCount; index < fullBlockCount; index += 1) {
      const blockId = sequence.blockTable[index];
      if (blockId === undefined) throw new Error('A sequence has computed more tokens than its blocks hold.');
      this.#cache.enter(this.#hashOf(sequence, index), blockId);
    }
    sequence.offeredBlockCount = fullBlockCount;
  }

  /** For a sequence that is pushed out and comes back: it finds what others have not overwritten until then. */
  releaseForReturn(sequence: OpenSequence): void {
    const { blockHashes, blockTable, tokenIds, offeredBlockCount } = sequence;
    for (let index = 0; index < offeredBlockCount; index += 1) {
      if (blockHashes[index] !== UNSHARED) continue;
      const start = index * this.blockSize;
      const parent = blockHashes[index - 1] ?? this.#rootOf(sequence);
      const hash = this.#hashing.block(parent, tokenIds, start, start + this.blockSize);
      blockHashes[index] = hash;
      this.#cache.name(blockTable[index] ?? -1, hash);
    }
    blockHashes.length = Math.min(blockHashes.length, offeredBlockCount);
    this.releaseAll(sequence);
  }

  /** Gives all blocks back, the last first: where room is needed, the ends of prefixes go before their beginnings. */
  releaseAll(sequence: OpenSequence): void {
    for (const blockId of sequence.blockTable.reverse()) {
      this.#blocks.release(blockId, this.#cache.holds(blockId) ? 'keep' : 'discard');
    }
    sequence.blockTable.length = 0;
    sequence.computedTokenCount = 0;
    sequence.offeredBlockCount = 0;
  }

  /** Whether the prefix cache holds a block of this hash now. */
  hasCached(hash: string): boolean {
    return this.#cache.find(hash) !== null;
  }

  /** Makes it a pool of so many blocks and empties the prefix cache; see KvBlocks.resize. */
  resize(blockCount: number): number[] {
    for (let blockId = 0; blockId < this.blockCount; blockId += 1) this.#cache.forget(blockId);
    return this.#blocks.resize(blockCount);
  }

  /** Everything that the prefix cache holds now. */
  cachedBlockHashes(): string[] {
    return this.#cache.hashes();
  }

  takeCacheChanges(): { entered: string[]; left: string[] } {
    return this.#cache.takeChanges();
  }

  /** References to a block; the scheduler's audit counts them against the tables. */
  referenceCount(blockId: number): number {
    return this.#blocks.referenceCount(blockId);
  }

  /** Of the sequence's first block; most ask for the same one. */
  #rootOf({ kvNumericsId, spec: { cacheSalt } }: OpenSequence): string {
    if (this.#root?.numericsId !== kvNumericsId || this.#root.cacheSalt !== cacheSalt) {
      const hash = this.#hashing.root(kvNumericsId, cacheSalt);
      this.#root = { numericsId: kvNumericsId, cacheSalt, hash };
    }
    return this.#root.hash;
  }

  #hashOf(sequence: OpenSequence, index: number): string {
    const { blockHashes, tokenIds } = sequence;
    for (let next = blockHashes.length; next <= index; next += 1) {
      const parent = blockHashes[next - 1] ?? this.#rootOf(sequence);
      const start = next * this.blockSize;
      const end = start + this.blockSize;
      const isUnshared = parent === UNSHARED || this.#hashing.isUnshared?.(tokenIds, start, end) === true;
      blockHashes.push(isUnshared ? UNSHARED : this.#hashing.block(parent, tokenIds, start, end));
    }
    const hash = blockHashes[index];
    if (hash === undefined) throw new Error(`Block ${index} has no hash.`);
    return hash;
  }
}
