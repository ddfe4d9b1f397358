/**
 * The pool of KV blocks: who holds a block, which are free, and which hold reusable contents nobody refers to now.
 * Owned by BlockTables. Knows nothing of tokens or hashes; the least recently released idle block is the first reused.
 */
export class KvBlocks {
  #blockCount: number;
  #referenceCounts: Int32Array;
  #free: number[];
  /** Unreferenced blocks with contents worth keeping, the least recently released first. */
  #idle: IdleList;

  constructor(blockCount: number) {
    this.#blockCount = blockCount;
    this.#referenceCounts = new Int32Array(blockCount);
    this.#idle = new IdleList(blockCount);
    this.#free = Array.from({ length: blockCount }, (_, index) => blockCount - 1 - index);
  }

  get blockCount(): number {
    return this.#blockCount;
  }

  /** Blocks that `allocate` could hand out now. */
  get availableCount(): number {
    return this.#free.length + this.#idle.count;
  }

  get usedCount(): number {
    return this.blockCount - this.availableCount;
  }

  /** A block with one reference whose contents are lost, or null where every block is held. */
  allocate(): number | null {
    const blockId = this.#free.pop() ?? this.#idle.takeOldest();
    if (blockId === null) return null;
    this.#referenceCounts[blockId] = 1;
    return blockId;
  }

  /** One more reference to a block whose contents are kept. */
  retain(blockId: number): void {
    this.#idle.remove(blockId);
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

  /**
   * Makes it a pool of so many blocks: held ones keep their ids and holders, all others are free. Returns the held ones,
   * ascending. @throws Error where one is held that the new pool does not have
   */
  resize(blockCount: number): number[] {
    const before = this.#referenceCounts;
    const held: number[] = [];
    before.forEach((count, blockId) => {
      if (count > 0) held.push(blockId);
    });
    const last = held.at(-1) ?? -1;
    if (last >= blockCount) throw new Error(`KV block ${last} is held, and there would be ${blockCount}.`);
    this.#referenceCounts = new Int32Array(blockCount);
    this.#referenceCounts.set(before.subarray(0, Math.min(blockCount, before.length)));
    this.#idle = new IdleList(blockCount);
    this.#free = [];
    for (let blockId = blockCount - 1; blockId >= 0; blockId -= 1) {
      if (this.#referenceCounts[blockId] === 0) this.#free.push(blockId);
    }
    this.#blockCount = blockCount;
    return held;
  }

  referenceCount(blockId: number): number {
    const count = this.#referenceCounts[blockId];
    if (count === undefined)
      throw new Error(`There is no KV block ${blockId}; there are ${this.#blockCount}.`);
    return count;
  }
}

const NONE = -1;

/**
 * A doubly linked list through two arrays, one cell a block: every operation is constant. (A Set keeps holes where its
 * oldest were deleted, and finding the first of the rest walks over all of them.)
 */
class IdleList {
  count = 0;
  readonly #next: Int32Array;
  readonly #previous: Int32Array;
  readonly #isIn: Uint8Array;
  #oldest = NONE;
  #newest = NONE;

  constructor(blockCount: number) {
    this.#next = new Int32Array(blockCount).fill(NONE);
    this.#previous = new Int32Array(blockCount).fill(NONE);
    this.#isIn = new Uint8Array(blockCount);
  }

  add(blockId: number): void {
    this.#isIn[blockId] = 1;
    this.#previous[blockId] = this.#newest;
    this.#next[blockId] = NONE;
    if (this.#newest === NONE) this.#oldest = blockId;
    else this.#next[this.#newest] = blockId;
    this.#newest = blockId;
    this.count += 1;
  }

  takeOldest(): number | null {
    if (this.#oldest === NONE) return null;
    const blockId = this.#oldest;
    this.remove(blockId);
    return blockId;
  }

  /** Nothing where it is not in. */
  remove(blockId: number): void {
    if (this.#isIn[blockId] !== 1) return;
    const next = this.#next[blockId] ?? NONE;
    const previous = this.#previous[blockId] ?? NONE;
    if (previous === NONE) this.#oldest = next;
    else this.#next[previous] = next;
    if (next === NONE) this.#newest = previous;
    else this.#previous[next] = previous;
    this.#isIn[blockId] = 0;
    this.count -= 1;
  }
}
