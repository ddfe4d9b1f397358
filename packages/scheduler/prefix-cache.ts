/**
 * Which KV block holds which tokens: a chain of 128-bit hashes over full blocks, salted by numericsId and cacheSalt, so
 * that a block is found only by a sequence whose whole prefix, bits and salt are equal. Owned by BlockTables. Holds no
 * references: it is told when a block enters and when its contents are lost.
 */
import { createHash } from 'node:crypto';

/** The parent of a sequence's first block. */
export function rootHash(numericsId: string, cacheSalt: string): string {
  return shortHash(createHash('sha256').update(JSON.stringify(['kv', numericsId, cacheSalt])));
}

/** Names the tokens of a full block and everything before them. */
export function blockHash(parentHash: string, tokenIds: readonly number[]): string {
  return shortHash(createHash('sha256').update(parentHash).update(Int32Array.from(tokenIds)));
}

const shortHash = (hash: ReturnType<typeof createHash>): string => hash.digest('hex').slice(0, 32);

export class PrefixCache {
  readonly #blockByHash = new Map<string, number>();
  readonly #hashByBlock = new Map<number, string>();
  #entered: string[] = [];
  #left: string[] = [];

  find(hash: string): number | null {
    return this.#blockByHash.get(hash) ?? null;
  }

  holds(blockId: number): boolean {
    return this.#hashByBlock.has(blockId);
  }

  /** The first block with these contents stays the known one; a second copy remains private to its sequence. */
  enter(hash: string, blockId: number): void {
    if (this.#blockByHash.has(hash) || this.#hashByBlock.has(blockId)) return;
    this.#blockByHash.set(hash, blockId);
    this.#hashByBlock.set(blockId, hash);
    this.#entered.push(hash);
  }

  /** The block's contents are about to be overwritten. */
  forget(blockId: number): void {
    const hash = this.#hashByBlock.get(blockId);
    if (hash === undefined) return;
    this.#hashByBlock.delete(blockId);
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
