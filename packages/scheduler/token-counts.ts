/**
 * How often a sequence has generated each token, kept up as tokens come, for the penalties that count them. Owned by an
 * OpenSequence, and made only where a penalty is on; the device copies the first `length` entries of each array into a step.
 */
import type { Sampling } from './sequence.ts';

export class TokenCounts {
  /** Distinct tokens, in order of first appearance. */
  tokenIds = new Int32Array(64);
  /** Times generated, by place; 0 for a token of the prompt alone. */
  counts = new Int32Array(64);
  length = 0;
  readonly #placeOf = new Map<number, number>();

  /** Presence and frequency count generated tokens alone; repetition looks at the prompt's too (vLLM's definitions). */
  static for(sampling: Sampling, promptTokenIds: readonly number[]): TokenCounts | null {
    const isRepetitionOn = (sampling.repetitionPenalty ?? 1) !== 1;
    if (!isRepetitionOn && (sampling.presencePenalty ?? 0) === 0 && (sampling.frequencyPenalty ?? 0) === 0) {
      return null;
    }
    const counts = new TokenCounts();
    if (isRepetitionOn) for (const tokenId of promptTokenIds) counts.#place(tokenId);
    return counts;
  }

  /** The sequence has generated the token once more. */
  add(tokenId: number): void {
    const place = this.#place(tokenId);
    this.counts[place] = (this.counts[place] ?? 0) + 1;
  }

  #place(tokenId: number): number {
    const known = this.#placeOf.get(tokenId);
    if (known !== undefined) return known;
    const place = this.length;
    if (place === this.tokenIds.length) {
      this.tokenIds = twiceAsLong(this.tokenIds);
      this.counts = twiceAsLong(this.counts);
    }
    this.tokenIds[place] = tokenId;
    this.#placeOf.set(tokenId, place);
    this.length = place + 1;
    return place;
  }
}

function twiceAsLong(values: Int32Array<ArrayBuffer>): Int32Array<ArrayBuffer> {
  const longer = new Int32Array(2 * values.length);
  longer.set(values);
  return longer;
}
