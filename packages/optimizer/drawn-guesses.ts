/**
 * Guesses for the twin, which knows no words: for each token of a replayed answer it is drawn whether there is a guess at it and
 * whether it is right, from what its request's row counted. The draw belongs to request and place, not to the path, so that all
 * paths replay the same text. Used by propose.ts and replay.ts. Deterministic by its seeds.
 */
import type { DraftSource, DraftSourceOf } from '@variator/scheduler/scheduler';
import type { GuessCounts } from '@variator/scheduler/sequence';
import type { Arrival } from './replay.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';
import { GENERATED_TOKEN_ID, tokenAt } from './synthetic-prompts.ts';

/**
 * Fewer say too little: shares of right guesses scatter by about 0.25 from request to request, so that sixteen know their mean
 * within 0.1 (90 %), and answers of thirty tokens hardly get to repeat themselves.
 */
const LEAST_WATCHED_REQUESTS = 16;
const LEAST_WATCHED_TOKENS = 500;
/** A request's own counts are held to those of all by so many tokens. */
const HELD_TO_ALL_TOKENS = 20;
/** What a search asks about, up to what the device verifies. */
const DRAFT_TOKEN_COUNTS = [0, 4, 8] as const;
/** Two tokens that agree make a guess. */
const LEAST_MATCH = 2;
const WRONG_TOKEN_ID = GENERATED_TOKEN_ID + 1;

/** What a window's watched requests say of guesses. */
export interface GuessBasis {
  readonly requestCount: number;
  /** Of watched tokens, those with a guess, 0..1. */
  readonly guessedShare: number;
  /** Of guessed tokens, those that were right, 0..1. */
  readonly rightShare: number;
}

type Guessed = Pick<Arrival, 'guesses'>;

const countsOf = (arrivals: readonly Guessed[]): GuessCounts[] =>
  arrivals.flatMap(({ guesses }) => (guesses && guesses.watchedTokenCount > 0 ? [guesses] : []));

/** Null where too few requests were watched to say anything. */
export function guessBasis(arrivals: readonly Guessed[]): GuessBasis | null {
  const counts = countsOf(arrivals);
  const all = sumOf(counts);
  if (counts.length < LEAST_WATCHED_REQUESTS || all.watchedTokenCount < LEAST_WATCHED_TOKENS) return null;
  return {
    requestCount: counts.length,
    guessedShare: all.guessedTokenCount / all.watchedTokenCount,
    rightShare: all.rightGuessCount / Math.max(1, all.guessedTokenCount),
  };
}

/** How much speculation is worth asking about; nothing where it is not known what guesses would be worth. */
export const draftChoices = (arrivals: readonly Guessed[]): readonly number[] =>
  guessBasis(arrivals) === null ? [] : DRAFT_TOKEN_COUNTS;

/**
 * The arrivals with what their guesses are drawn from: their own counts, held to those of all; a request that was not watched has
 * those of one that was. None has any where too few were watched.
 */
export function withGuesses(arrivals: readonly Arrival[]): Arrival[] {
  const counts = countsOf(arrivals);
  if (guessBasis(arrivals) === null) return arrivals.map((arrival) => ({ ...arrival, guesses: null }));
  const all = sumOf(counts);
  const random = seededRandom(counts.length);
  return arrivals.map((arrival) => {
    const { guesses } = arrival;
    const another = counts[random.below(counts.length)] ?? all;
    const own = guesses && guesses.watchedTokenCount > 0 ? guesses : another;
    return { ...arrival, guesses: heldTo(own, all) };
  });
}

/** @param guessesOf a sequence's counts; null where it is never guessed at */
export function drawnGuesses(
  guessesOf: (sequenceId: string) => GuessCounts | null,
  seed: number,
): DraftSourceOf {
  return (spec) => {
    const counts = guessesOf(spec.sequenceId);
    if (counts === null) return NOTHING;
    const random = seededRandom(Math.imul(seed, 0x9e3779b1) ^ tokenAt(spec.sequenceId, 0));
    return new DrawnGuesses(counts, spec.promptTokenIds.length, random);
  };
}

const NOTHING: DraftSource = { draft: () => [] };

type Outcome = 'none' | 'wrong' | 'right';

/**
 * Right tokens come in runs: at each place a run goes on, begins or does not, and where a run has ended its guess mostly goes on,
 * wrongly. A guess is as long as what agreed before it, as with a look-up.
 */
class DrawnGuesses implements DraftSource {
  readonly #promptTokenCount: number;
  readonly #random: SeededRandom;
  readonly #goesOn: number;
  readonly #begins: number;
  readonly #wrongAfterRun: number;
  readonly #wrongElse: number;
  /** By place in the answer. */
  readonly #outcomes: Outcome[] = [];

  constructor(counts: GuessCounts, promptTokenCount: number, random: SeededRandom) {
    const { watchedTokenCount, guessedTokenCount, rightGuessCount, rightRunCount } = counts;
    const otherCount = watchedTokenCount - rightGuessCount;
    const wrongCount = guessedTokenCount - rightGuessCount;
    this.#promptTokenCount = promptTokenCount;
    this.#random = random;
    this.#goesOn = 1 - share(rightRunCount, rightGuessCount);
    this.#begins = share(rightRunCount, otherCount);
    this.#wrongAfterRun = share(wrongCount, rightRunCount);
    this.#wrongElse = share(wrongCount - rightRunCount, otherCount - rightRunCount);
  }

  draft(tokenIds: readonly number[], most: number): number[] {
    const place = tokenIds.length - this.#promptTokenCount;
    if (place < 1 || most < 1 || this.#outcomeAt(place) === 'none') return [];
    let match = LEAST_MATCH;
    for (let before = place - 1; before > 0 && this.#outcomes[before] === 'right'; before -= 1) match += 1;
    const length = Math.min(most, match);
    let right = 0;
    while (right < length && this.#outcomeAt(place + right) === 'right') right += 1;
    return Array.from({ length }, (_, k) => (k < right ? GENERATED_TOKEN_ID : WRONG_TOKEN_ID));
  }

  #outcomeAt(place: number): Outcome {
    for (let next = this.#outcomes.length; next <= place; next += 1) {
      const isRunning = this.#outcomes[next - 1] === 'right';
      const isRight = this.#random.uniform() < (isRunning ? this.#goesOn : this.#begins);
      const isGuessed = this.#random.uniform() < (isRunning ? this.#wrongAfterRun : this.#wrongElse);
      // Before the first token there is nothing to guess.
      this.#outcomes.push(next === 0 ? 'none' : isRight ? 'right' : isGuessed ? 'wrong' : 'none');
    }
    return this.#outcomes[place] ?? 'none';
  }
}

const share = (part: number, whole: number): number =>
  whole > 0 ? Math.min(1, Math.max(0, part / whole)) : 0;

function sumOf(counts: readonly GuessCounts[]): GuessCounts {
  const total = (key: keyof GuessCounts): number => counts.reduce((sum, one) => sum + one[key], 0);
  return {
    watchedTokenCount: total('watchedTokenCount'),
    guessedTokenCount: total('guessedTokenCount'),
    rightGuessCount: total('rightGuessCount'),
    rightRunCount: total('rightRunCount'),
  };
}

function heldTo(own: GuessCounts, all: GuessCounts): GuessCounts {
  const weight = HELD_TO_ALL_TOKENS / all.watchedTokenCount;
  const held = (key: keyof GuessCounts): number => own[key] + weight * all[key];
  return {
    watchedTokenCount: held('watchedTokenCount'),
    guessedTokenCount: held('guessedTokenCount'),
    rightGuessCount: held('rightGuessCount'),
    rightRunCount: held('rightRunCount'),
  };
}
