/**
 * What guesses by lookup would be worth, counted without verifying any: for each token of a sampled sequence, whether there was a
 * guess at it and whether it was right. The tokens alone decide, so the counts are the same whether and how far the live path
 * speculates; the optimizer draws a path's guesses from them. Kept by open-sequence.ts, fed by settle.ts; bounded in host time.
 */
import { LookupIndex } from './lookup-index.ts';
import type { GuessCounts, SequenceSpec } from './sequence.ts';

/** A longer guess is not followed: the place is looked up again. */
export const MOST_GUESSED = 16;
/**
 * What a step may spend on watching, in tokens that an index takes in (0.13 us each on the reference machine): half a percent of
 * what it took on the device. A prompt is taken in over as many steps as that needs.
 */
const TOKENS_PER_DEVICE_MS = 35;
const LEAST_ALLOWANCE = 32;
const MOST_ALLOWANCE = 1024;
/** Of open sequences that are watched; an index holds some 100 bytes for each. */
export const MOST_WATCHED_TOKENS = 400_000;
/** What a look-up costs in those. */
const LOOK_UP = 4;

/** What is left to a step. */
export interface WatchAllowance {
  left: number;
}

export function stepAllowance(deviceMs: number): WatchAllowance {
  return { left: Math.min(MOST_ALLOWANCE, Math.max(LEAST_ALLOWANCE, TOKENS_PER_DEVICE_MS * deviceMs)) };
}

export const noGuesses: GuessCounts = {
  watchedTokenCount: 0,
  guessedTokenCount: 0,
  rightGuessCount: 0,
  rightRunCount: 0,
};

export class GuessWatch {
  readonly #counts = { ...noGuesses };
  /** Null for a sequence that cannot speculate: there is no guess at any of its tokens. */
  readonly #index: LookupIndex | null;
  #guess: readonly number[] = [];
  #followed = 0;
  /** Whether the next token is one of those looked at. */
  #isLooking = false;
  /** Whether a run of right guesses may be under way. */
  #isInRun = false;

  private constructor(index: LookupIndex | null) {
    this.#index = index;
  }

  /** @param share of all sequences that are watched, chosen by their names; null for the others */
  static for(spec: SequenceSpec, share: number): GuessWatch | null {
    if (!(shareOf(spec.sequenceId) < share)) return null;
    return new GuessWatch(canSpeculate(spec) ? new LookupIndex() : null);
  }

  get counts(): GuessCounts {
    return { ...this.#counts };
  }

  /**
   * Called with every generated token, which is the last of these; at the first there is nothing to guess yet. Where the step's
   * allowance is used up, the next token is not looked at.
   */
  note(tokenIds: readonly number[], allowance: WatchAllowance): void {
    if (this.#isLooking) this.#judge(tokenIds.at(-1) ?? -1);
    this.#isLooking = this.#index === null || this.#prepare(this.#index, tokenIds, allowance);
  }

  #judge(tokenId: number): void {
    const counts = this.#counts;
    counts.watchedTokenCount += 1;
    const guessed = this.#guess[this.#followed];
    if (guessed !== undefined) counts.guessedTokenCount += 1;
    if (guessed !== tokenId) {
      this.#guess = [];
      this.#isInRun = false;
      return;
    }
    this.#followed += 1;
    counts.rightGuessCount += 1;
    if (!this.#isInRun) counts.rightRunCount += 1;
    this.#isInRun = true;
  }

  /** Finds the guess at the next token, unless the one before goes on; false where that has to wait. */
  #prepare(index: LookupIndex, tokenIds: readonly number[], allowance: WatchAllowance): boolean {
    if (this.#followed < this.#guess.length) return true;
    // A long prompt leaves as much to those after it.
    allowance.left -= index.read(tokenIds, Math.max(0, Math.floor((allowance.left - LOOK_UP) / 2)));
    this.#guess = [];
    this.#followed = 0;
    if (!index.hasRead(tokenIds) || allowance.left < LOOK_UP) return false;
    allowance.left -= LOOK_UP;
    this.#guess = index.draft(tokenIds, MOST_GUESSED);
    return true;
  }
}

/** Penalties, bans, biases and scores depend on tokens that are only guessed. */
function canSpeculate({ sampling }: SequenceSpec): boolean {
  return (
    (sampling.presencePenalty ?? 0) === 0 &&
    (sampling.frequencyPenalty ?? 0) === 0 &&
    (sampling.repetitionPenalty ?? 1) === 1 &&
    (sampling.minTokens ?? 0) === 0 &&
    (sampling.logitBias ?? []).length === 0 &&
    sampling.logprobCount === undefined &&
    sampling.isPromptScored !== true
  );
}

/** Its place from 0 to 1 among all names. */
function shareOf(name: string): number {
  let hash = 0x811c9dc5;
  for (let index = 0; index < name.length; index += 1) {
    hash = Math.imul(hash ^ name.charCodeAt(index), 0x01000193);
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b);
  return ((hash ^ (hash >>> 13)) >>> 0) / 2 ** 32;
}
