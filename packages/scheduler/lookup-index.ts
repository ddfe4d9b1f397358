/**
 * Drafts by lookup: where the last tokens of a sequence stood before in it, what followed them then is a guess at what follows
 * now (prompt lookup decoding, Saxena 2023). One index a sequence, kept by open-sequence.ts, asked by drafts.ts and guess-watch.ts.
 * Chains of equal pairs of tokens, as LZ77 keeps them: constant memory and time a token.
 */

/** Earlier places that are looked at, the newest first. */
const MOST_PLACES = 16;
/** A longer match says no more. */
const MOST_MATCH = 24;

export class LookupIndex {
  /** Where a pair of tokens ended last. */
  readonly #last = new Map<number, number>();
  /** By position: where its pair ended before; -1 nowhere. */
  readonly #before: number[] = [];

  /**
   * Takes in at most `most` tokens, of all but the newest: a pair that ends there is what is looked for.
   * @returns how many
   */
  read(tokenIds: readonly number[], most = Number.POSITIVE_INFINITY): number {
    const start = this.#before.length;
    const end = Math.min(tokenIds.length - 1, start + most);
    for (let position = start; position < end; position += 1) {
      const pair = pairOf(tokenIds, position);
      this.#before.push(pair === null ? -1 : (this.#last.get(pair) ?? -1));
      if (pair !== null) this.#last.set(pair, position);
    }
    return Math.max(0, end - start);
  }

  /** Whether it has taken in all of these that it will before they become more. */
  hasRead(tokenIds: readonly number[]): boolean {
    return this.#before.length >= tokenIds.length - 1;
  }

  /**
   * At most `most` tokens, and no more than tokens agree before the place they come from; none where nothing agrees.
   * @param tokenIds all of the sequence so far; it only grows from call to call
   */
  draft(tokenIds: readonly number[], most: number): number[] {
    this.read(tokenIds);
    const end = tokenIds.length - 1;
    const pair = pairOf(tokenIds, end);
    let place = pair === null ? -1 : (this.#last.get(pair) ?? -1);
    let best = -1;
    let bestMatch = 1;
    for (let looked = 0; place >= 0 && looked < MOST_PLACES; looked += 1) {
      const match = matchLength(tokenIds, place, end);
      if (match > bestMatch) {
        best = place;
        bestMatch = match;
      }
      place = this.#before[place] ?? -1;
    }
    if (best < 0) return [];
    const drafts: number[] = [];
    // Where the sequence repeats itself the guess runs on into itself.
    for (let next = best + 1; drafts.length < Math.min(most, bestMatch); next += 1) {
      const tokenId = next < tokenIds.length ? tokenIds[next] : drafts[next - tokenIds.length];
      if (tokenId === undefined) break;
      drafts.push(tokenId);
    }
    return drafts;
  }
}

/** A number for the tokens at `end - 1` and `end`: exact, since ids are below 2^26; null at the first token. */
function pairOf(tokenIds: readonly number[], end: number): number | null {
  const first = tokenIds[end - 1];
  const second = tokenIds[end];
  return first === undefined || second === undefined ? null : first * 2 ** 26 + second;
}

/** How many tokens before and at the two ends agree. */
function matchLength(tokenIds: readonly number[], a: number, b: number): number {
  let length = 0;
  while (length < MOST_MATCH && length <= a && tokenIds[a - length] === tokenIds[b - length]) length += 1;
  return length;
}
