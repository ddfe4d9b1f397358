/**
 * Which of several workers gets a sequence: the one whose cache holds most of its prompt while that costs little waiting and
 * leaves the others their share, else the one where waiting and load together are least. Pure; the gateway and the virtual
 * clock call it. Scores are in predicted device milliseconds (step-time.ts), so a cached block and a queue are one currency.
 *
 *   wait(w)  = prefill still to be computed there + its own, less what is cached there
 *   sticky   = most cached, at least half its prompt, within 3 s of the least wait, not the owner of too many sequences
 *   else       the least (wait(w) + 2 ms) * (sequences there + 1)
 */
import { type BlockHashing, sha256Hashing } from './block-hashing.ts';
import { correctionFactor, type StepFeatures, type StepTimeFit } from './step-time.ts';

/** A worker as it would be for one sequence. */
export interface RouteTarget {
  /** Of sequences there that have no token yet, predicted. */
  readonly pendingPrefillMs: number;
  /** Of this sequence there, predicted; what is cached there costs nothing. */
  readonly ownPrefillMs: number;
  /** Of this sequence's tokens. */
  readonly cachedTokenCount: number;
  /** Sequences there, running and waiting. */
  readonly openCount: number;
  /** False where its KV blocks would have to be taken from others. */
  readonly hasRoom: boolean;
}

/** Least share of the prompt in a cache for which one waits. */
const LEAST_STICKY_SHARE = 0.5;
/** What a cached prefix may cost in waiting; the choice is not sensitive from 0.3 to 8 s. */
const MOST_STICKY_WAIT_MS = 3000;
/** A prefix that everybody has (one system prompt) must not bring everybody to one worker: beyond, it is computed again. */
const MOST_SHARE_OF_MEAN = 1.5;
/** Below so many sequences a worker is not crowded whatever the others have. */
const LEAST_CROWD = 4;
/** Keeps load in the score where nothing waits. */
const STEP_WAIT_MS = 2;

/** @returns the index of the chosen target; -1 of none. Targets with room come before all others. */
export function chooseTarget(targets: readonly RouteTarget[], tokenCount: number): number {
  const withRoom = targets.flatMap((target, index) => (target.hasRoom ? [index] : []));
  const candidates = withRoom.length > 0 ? withRoom : targets.map((_, index) => index);
  const waits = targets.map(({ pendingPrefillMs, ownPrefillMs }) => pendingPrefillMs + ownPrefillMs);
  const least = (scores: readonly number[]): number =>
    candidates.reduce(
      (best, index) => (at(scores, index) < at(scores, best) ? index : best),
      candidates[0] ?? -1,
    );

  const sticky = least(targets.map(({ cachedTokenCount, openCount }) => openCount * 1e-6 - cachedTokenCount));
  const home = targets[sticky];
  if (home !== undefined && home.cachedTokenCount > LEAST_STICKY_SHARE * tokenCount) {
    const leastWait = at(waits, least(waits));
    const openInAll = targets.reduce((sum, { openCount }) => sum + openCount, 1);
    const mostOpen = Math.max(LEAST_CROWD, (MOST_SHARE_OF_MEAN * openInAll) / targets.length);
    if (at(waits, sticky) - leastWait < MOST_STICKY_WAIT_MS && home.openCount + 1 <= mostOpen) return sticky;
  }
  return least(targets.map(({ openCount }, index) => (at(waits, index) + STEP_WAIT_MS) * (openCount + 1)));
}

const at = (scores: readonly number[], index: number): number => scores[index] ?? Number.POSITIVE_INFINITY;

/**
 * Device milliseconds of a prefill of `tokenCount` tokens of which `cachedTokenCount` are there, in chunks of at most
 * `tokenBudget`. What steps cost beside it (weights read, decodes) is not its own. By the seven terms, as far off as they
 * are near a step of its first chunk: on another kind of device they may be off otherwise.
 */
export function prefillMs(
  fit: StepTimeFit,
  tokenCount: number,
  cachedTokenCount: number,
  tokenBudget: number,
): number {
  const { perToken, perTokenAboveKnee, perPrefillSequence, perPrefillAttention } = fit.betaMs;
  const ownCount = tokenCount - cachedTokenCount;
  const wholeChunks = Math.floor(ownCount / tokenBudget);
  const rest = ownCount - wholeChunks * tokenBudget;
  const aboveKnee = (chunk: number): number => Math.max(0, chunk - fit.kneeTokens);
  const ms =
    perToken * ownCount +
    perTokenAboveKnee * (wholeChunks * aboveKnee(tokenBudget) + aboveKnee(rest)) +
    perPrefillSequence * Math.ceil(ownCount / tokenBudget) +
    // Every token attends to what is before it, however the chunks are cut.
    perPrefillAttention * ownCount * (cachedTokenCount + ownCount / 2);
  return ms * correctionFactor(fit, chunkFeatures(Math.min(ownCount, tokenBudget), cachedTokenCount));
}

/** A step of one chunk alone. */
const chunkFeatures = (tokenCount: number, contextLength: number): StepFeatures => ({
  tokenCount,
  decodeSequenceCount: 0,
  prefillSequenceCount: 1,
  prefillTokenCount: tokenCount,
  decodeContextTokens: 0,
  prefillAttention: tokenCount * (contextLength + tokenCount / 2),
});

export interface CacheView {
  readonly numericsId: string;
  readonly blockSize: number;
  /** Of the full blocks that its prefix cache holds. */
  readonly blockHashes: { has(hash: string): boolean };
}

/**
 * How many of a sequence's first tokens each cache holds; whole blocks, never the last token. A prefix is hashed only as far
 * as the longest of them goes, once for caches of equal bits and block size.
 */
export function cachedTokenCounts(
  tokenIds: readonly number[],
  cacheSalt: string,
  caches: readonly CacheView[],
  hashing: BlockHashing = sha256Hashing,
): number[] {
  const chains = new Map<string, string[]>();
  return caches.map(({ numericsId, blockSize, blockHashes }) => {
    const name = `${numericsId}/${blockSize}`;
    const chain = chains.get(name) ?? [];
    chains.set(name, chain);
    const mostBlocks = Math.floor((tokenIds.length - 1) / blockSize);
    for (let index = 0; index < mostBlocks; index += 1) {
      const parent = chain[index - 1] ?? hashing.root(numericsId, cacheSalt);
      const hash =
        chain[index] ?? hashing.block(parent, tokenIds, index * blockSize, (index + 1) * blockSize);
      chain[index] = hash;
      if (!blockHashes.has(hash)) return index * blockSize;
    }
    return Math.max(0, mostBlocks) * blockSize;
  });
}
