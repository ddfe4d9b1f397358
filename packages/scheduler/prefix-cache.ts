/**
 * Which KV block holds which tokens: a chain of hashes over full blocks (block-hashing.ts), so that a block is found only
 * by a sequence whose whole prefix, bits and salt are equal. Owned by BlockTables. Holds no references: it is told when a
 * block enters and when its contents are lost.
 */
import { UNSHARED } from './block-hashing.ts';

export class PrefixCache {
  readonly #blockByHash = new Map<string, number>();
  /** By block; undefined where it holds nothing that can be found. */
  readonly #hashByBlock: (string | undefined)[];
  #entered: string[] = [];
  #left: string[] = [];

  constructor(blockCount: number) {
    this.#hashByBlock = new Array<string | undefined>(blockCount).fill(undefined);
  }

  find(hash: string): number | null {
    return hash === UNSHARED ? null : (this.#blockByHash.get(hash) ?? null);
  }

  holds(blockId: number): boolean {
    return this.#hashByBlock[blockId] !== undefined;
  }

  /** The first block with these contents stays the known one; a second copy remains private to its sequence. */
  enter(hash: string, blockId: number): void {
    if (this.#hashByBlock[blockId] !== undefined) return;
    if (hash === UNSHARED) {
      this.#hashByBlock[blockId] = hash;
      return;
    }
    if (this.#blockByHash.has(hash)) return;
    this.#blockByHash.set(hash, blockId);
    this.#hashByBlock[blockId] = hash;
    this.#entered.push(hash);
  }

  /** An unshared block gets the name by which its own sequence will ask for it. */
  name(blockId: number, hash: string): void {
    if (this.#hashByBlock[blockId] !== UNSHARED) return;
    this.#hashByBlock[blockId] = undefined;
    this.enter(hash, blockId);
  }

  /** The block's contents are about to be overwritten. */
  forget(blockId: number): void {
    const hash = this.#hashByBlock[blockId];
    if (hash === undefined) return;
    this.#hashByBlock[blockId] = undefined;
    if (hash === UNSHARED) return;
    this.#blockByHash.delete(hash);
    this.#left.push(hash);
  }

  /** Everything it holds. */
  hashes(): string[] {
    return [...this.#blockByHash.keys()];
  }

  /** What entered and left since the last call. */
  takeChanges(): { entered: string[]; left: string[] } {
    const changes = { entered: this.#entered, left: this.#left };
    this.#entered = [];
    this.#left = [];
    return changes;
  }
}
