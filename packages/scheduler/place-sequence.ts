/**
 * Where a sequence would go: what each worker would be for it, in predicted device milliseconds, and which route.ts chooses.
 * Pure; called by the gateway for every placement (apps/engine/fleet/route-sequence.ts) and by the twin's router.
 */
import { type BlockHashing, sha256Hashing } from './block-hashing.ts';
import { type CacheView, cachedTokenCounts, chooseTarget, prefillMs, type RouteTarget } from './route.ts';
import type { StepTimeFit } from './step-time.ts';

/** A worker as whoever routes knows it. */
export interface RouteWorker extends CacheView {
  readonly fit: StepTimeFit | null;
  readonly tokenBudget: number;
  readonly kvBlockCount: number;
  readonly kvUsedBlockCount: number;
  /** Sequences there, running and waiting. */
  readonly openCount: number;
  /** Of those without a token yet: prefill predicted when they were placed, and blocks these will take. */
  readonly pending: Iterable<PendingPrefill>;
}

export interface PendingPrefill {
  /** Of its prefill there, predicted. */
  readonly prefillMs: number;
  /** That its prefill will take there. */
  readonly blockCount: number;
}

export interface RoutedSequence {
  /** All that is to be computed or found cached: the prompt, and what was generated elsewhere. */
  readonly tokenIds: readonly number[];
  readonly cacheSalt: string;
  /** False where it has to compute its whole prompt itself. */
  readonly mayUseCache: boolean;
}

/** What a worker would be for it. */
export interface Place extends PendingPrefill {
  readonly target: RouteTarget;
}

/** Where a worker has no fit yet, all are compared by tokens, as if each took so long. */
const NOMINAL_MS_PER_TOKEN = 1;

/** One place for each worker, in their order. */
export function placesOf(
  { tokenIds, cacheSalt, mayUseCache }: RoutedSequence,
  workers: readonly RouteWorker[],
  hashing: BlockHashing = sha256Hashing,
): Place[] {
  const cached = mayUseCache
    ? cachedTokenCounts(tokenIds, cacheSalt, workers, hashing)
    : workers.map(() => 0);
  const isComparable = workers.every(({ fit }) => fit !== null);
  return workers.map((worker, index) => {
    const { fit, blockSize } = worker;
    const cachedTokenCount = cached[index] ?? 0;
    const ownMs =
      isComparable && fit !== null
        ? prefillMs(fit, tokenIds.length, cachedTokenCount, worker.tokenBudget)
        : (tokenIds.length - cachedTokenCount) * NOMINAL_MS_PER_TOKEN;
    // One block more for its first tokens.
    const blockCount = Math.ceil(tokenIds.length / blockSize) + 1 - cachedTokenCount / blockSize;
    let pendingPrefillMs = 0;
    let pendingBlockCount = 0;
    for (const pending of worker.pending) {
      pendingPrefillMs += pending.prefillMs;
      pendingBlockCount += pending.blockCount;
    }
    const target: RouteTarget = {
      pendingPrefillMs,
      ownPrefillMs: ownMs,
      cachedTokenCount,
      openCount: worker.openCount,
      hasRoom: worker.kvUsedBlockCount + pendingBlockCount + blockCount <= worker.kvBlockCount,
    };
    return { prefillMs: ownMs, blockCount, target };
  });
}

/** The chosen worker's place and index; null of no workers. */
export function placeSequence(
  sequence: RoutedSequence,
  workers: readonly RouteWorker[],
  hashing: BlockHashing = sha256Hashing,
): (Place & { readonly index: number }) | null {
  const places = placesOf(sequence, workers, hashing);
  const index = chooseTarget(
    places.map(({ target }) => target),
    sequence.tokenIds.length,
  );
  const place = places[index];
  return place === undefined ? null : { ...place, index };
}
