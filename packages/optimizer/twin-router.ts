/**
 * The gateway's part of a twin: what it knows of each worker (open sequences, prefills under way, cached blocks), and the
 * choice, by the same code (packages/scheduler/place-sequence.ts) or by another policy that is compared with it.
 */
import { kvBlockCountOf, numericsId } from '@variator/kernels/execution-path';
import type { Batch, StepSettlement } from '@variator/scheduler/batch';
import { virtualHashing } from '@variator/scheduler/block-hashing';
import {
  type PendingPrefill,
  type Place,
  placesOf,
  type RouteWorker,
} from '@variator/scheduler/place-sequence';
import { chooseTarget } from '@variator/scheduler/route';
import type { EndedSequence } from '@variator/scheduler/sequence';
import type { TwinRequest, TwinRunObserver } from './twin.ts';
import type { TwinWorker } from './twin-worker.ts';

/** Which of the places a request goes to. */
export type RoutePolicy = (places: readonly Place[], request: TwinRequest) => number;

export const gatewayPolicy: RoutePolicy = (places, { spec }) =>
  chooseTarget(
    places.map(({ target }) => target),
    spec.promptTokenIds.length,
  );

export class TwinRouter implements TwinRunObserver {
  readonly #policy: RoutePolicy;
  readonly #workers: readonly RouteWorker[];
  readonly #pending: readonly Map<string, PendingPrefill>[];
  readonly #placeOf = new Map<string, number>();

  constructor(workers: readonly TwinWorker[], policy: RoutePolicy = gatewayPolicy) {
    this.#policy = policy;
    this.#pending = workers.map(() => new Map());
    this.#workers = workers.map((worker, index) => routeWorker(worker, this.#pending[index] ?? new Map()));
  }

  choose = (request: TwinRequest): number => {
    const { promptTokenIds, cacheSalt, sequenceId } = request.spec;
    const routed = { tokenIds: promptTokenIds, cacheSalt, mayUseCache: true };
    const places = placesOf(routed, this.#workers, virtualHashing);
    const index = this.#policy(places, request);
    const place = places[index];
    if (place === undefined) throw new Error(`The policy chose worker ${index} of ${places.length}.`);
    this.#pending[index]?.set(sequenceId, { prefillMs: place.prefillMs, blockCount: place.blockCount });
    this.#placeOf.set(sequenceId, index);
    return index;
  };

  arrived(): void {}

  stepped(_: Batch, { events }: StepSettlement): void {
    for (const { sequenceId, index } of events) if (index === 0) this.#started(sequenceId);
  }

  leaped(): void {}

  ended({ sequenceId }: EndedSequence): void {
    this.#started(sequenceId);
    this.#placeOf.delete(sequenceId);
  }

  #started(sequenceId: string): void {
    const index = this.#placeOf.get(sequenceId);
    if (index !== undefined) this.#pending[index]?.delete(sequenceId);
  }
}

function routeWorker(worker: TwinWorker, pending: Map<string, PendingPrefill>): RouteWorker {
  const { scheduler, options } = worker;
  const { envelope, path, fit } = options;
  return {
    numericsId: numericsId(path),
    blockSize: envelope.kvBlockSize,
    blockHashes: { has: (hash) => scheduler.hasCachedBlock(hash) },
    fit,
    tokenBudget: path.tokenBudget,
    kvBlockCount: kvBlockCountOf(envelope, path),
    get kvUsedBlockCount() {
      return scheduler.counts().kvUsedBlockCount;
    },
    get openCount() {
      return scheduler.openCount;
    },
    pending: { [Symbol.iterator]: () => pending.values() },
  };
}
