/**
 * The pool of KV blocks: who holds a block, which are free, and which hold reusable contents nobody refers to now.
 * Owned by BlockTables. Knows nothing of tokens or hashes; the least recently released idle block is the first reused.
 */
export class KvBlocks {
  readonly blockCount: number;
  readonly #referenceCounts: Int32Array;
  readonly #free: number[];
  /** Unreferenced blocks with contents worth keeping; a Set iterates in order of insertion, so oldest first. */
  readonly #idle = new Set<number>();

  constructor(blockCount: number) {
    this.blockCount = blockCount;
    this.#referenceCounts = new Int32Array(blockCount);
    this.#free = Array.from({ length: blockCount }, (_, index) => blockCount - 1 - index);
  }

  /** Blocks that `allocate` could hand out now. */
  get availableCount(): number {
    return this.#free.length + this.#idle.size;
  }

  get usedCount(): number {
    return this.blockCount - this.availableCount;
  }

  /** A block with one reference whose contents are lost, or null where every block is held. */
  allocate(): number | null {
    let blockId = this.#free.pop();
    if (blockId === undefined) {
      for (const oldest of this.#idle) {
        blockId = oldest;
        break;
      }
      if (blockId === undefined) return null;
      this.#idle.delete(blockId);
    }
    this.#referenceCounts[blockId] = 1;
    return blockId;
  }

  /** One more reference to a block whose contents are kept. */
  retain(blockId: number): void {
    this.#idle.delete(blockId);
    this.#referenceCounts[blockId] = this.referenceCount(blockId) + 1;
  }

  /** One reference less; the last one puts the block among the idle (`keep`) or the free ones (`discard`). */
  release(blockId: number, contents: 'keep' | 'discard'): void {
    const count = this.referenceCount(blockId);
    if (count < 1) throw new Error(`KV block ${blockId} was released more often than it was held.`);
    this.#referenceCounts[blockId] = count - 1;
    if (count > 1) return;
    if (contents === 'keep') this.#idle.add(blockId);
    else this.#free.push(blockId);
  }

  referenceCount(blockId: number): number {
    const count = this.#referenceCounts[blockId];
    if (count === undefined)
      throw new Error(`There is no KV block ${blockId}; there are ${this.blockCount}.`);
    return count;
  }
}
