/**
 * Names of full KV blocks: a chain of hashes over their tokens, salted by numericsId and cacheSalt. Used by BlockTables and
 * by the router. Two ways: SHA-256 where prompts are somebody's, and a cheap one for virtual clocks, whose prompts are made.
 */
import { createHash } from 'node:crypto';

export interface BlockHashing {
  /** The parent of a sequence's first block. */
  root(numericsId: string, cacheSalt: string): string;
  /** Names the tokens from `start` up to `end`, a full block, and everything before them. */
  block(parentHash: string, tokenIds: readonly number[], start: number, end: number): string;
  /** True where no other sequence can have these tokens; what follows them is unshared, too. Absent: nobody knows. */
  isUnshared?(tokenIds: readonly number[], start: number, end: number): boolean;
}

/** 128 bits of SHA-256, as hexadecimal digits: nobody finds a prompt that shares another one's blocks. */
export const sha256Hashing: BlockHashing = {
  root: (numericsId, cacheSalt) =>
    shortHash(createHash('sha256').update(JSON.stringify(['kv', numericsId, cacheSalt]))),
  block: (parentHash, tokenIds, start, end) =>
    shortHash(
      createHash('sha256')
        .update(parentHash)
        .update(Int32Array.from(tokenIds.slice(start, end))),
    ),
};

const shortHash = (hash: ReturnType<typeof createHash>): string => hash.digest('hex').slice(0, 32);

/** Stands for the name of an unshared block, which the cache keeps like others; it needs one only if its own sequence was pushed out. */
export const UNSHARED = '';

/** Token ids from here on are one made prompt's own: no other one has them in that place. */
export const FIRST_OWN_TOKEN_ID = 2 ** 30;

/**
 * 64 bits as four UTF-16 units, a hundredth of the cost: two lanes of 32 bits, each mixed by multiplication and shift
 * (constants of MurmurHash3's finaliser). For made prompts alone: equal names of different blocks can be constructed, and
 * by chance there is one in some 10^19 pairs.
 */
export const virtualHashing: BlockHashing = {
  root(numericsId, cacheSalt) {
    const text = JSON.stringify([numericsId, cacheSalt]);
    return virtualHash(
      0,
      0,
      Array.from(text, (character) => character.codePointAt(0) ?? 0),
      0,
      text.length,
    );
  },
  block: (parentHash, tokenIds, start, end) =>
    virtualHash(
      (parentHash.charCodeAt(0) << 16) | parentHash.charCodeAt(1),
      (parentHash.charCodeAt(2) << 16) | parentHash.charCodeAt(3),
      tokenIds,
      start,
      end,
    ),
  isUnshared(tokenIds, start, end) {
    for (let index = start; index < end; index += 1) {
      if ((tokenIds[index] ?? 0) >= FIRST_OWN_TOKEN_ID) return true;
    }
    return false;
  },
};

function virtualHash(
  high: number,
  low: number,
  tokenIds: readonly number[],
  start: number,
  end: number,
): string {
  let a = high ^ 0x9e3779b9;
  let b = low ^ (end - start);
  for (let index = start; index < end; index += 1) {
    const tokenId = tokenIds[index] ?? 0;
    a = Math.imul(a ^ tokenId, 0x85ebca6b);
    a ^= a >>> 13;
    b = Math.imul(b + tokenId + (a << 7), 0xc2b2ae35);
    b ^= b >>> 16;
  }
  a = Math.imul(a ^ (b >>> 11), 0xc2b2ae35);
  a ^= a >>> 16;
  b = Math.imul(b ^ (a >>> 15), 0x85ebca6b);
  b ^= b >>> 13;
  return String.fromCharCode(a >>> 16, a & 0xffff, b >>> 16, b & 0xffff);
}
