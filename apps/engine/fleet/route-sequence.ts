/**
 * Which worker gets a sequence: gathers what packages/scheduler/route.ts decides from. Called by worker-fleet.ts for every
 * placement. With one worker there is nothing to decide and nothing is hashed.
 */
import { kernelsId, kvBlockCountOf } from '@variator/kernels/execution-path';
import { cachedTokenCounts, chooseTarget, prefillMs, type RouteTarget } from '@variator/scheduler/route';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { JoinedWorker } from './joined-worker.ts';
import type { OpenSequence } from './open-sequences.ts';

export type FitFor = (deviceKind: string, modelHash: string, kernelsId: string) => StepTimeFit | null;

export interface Placement {
  readonly worker: JoinedWorker;
  /** Of its prefill there, predicted. */
  readonly prefillMs: number;
  /** That its prefill will take there. */
  readonly blockCount: number;
}

/** Where a worker has no fit yet, all are compared by tokens, as if each took so long. */
const NOMINAL_MS_PER_TOKEN = 1;

/** Null while no worker is ready. */
export function placementOf(
  sequence: OpenSequence,
  ready: readonly JoinedWorker[],
  fitFor: FitFor,
): Placement | null {
  const [only] = ready;
  if (only === undefined) return null;
  if (ready.length === 1) return { worker: only, prefillMs: 0, blockCount: 0 };

  const { spec, generatedTokenIds } = sequence;
  const tokenIds =
    generatedTokenIds.length === 0 ? spec.promptTokenIds : [...spec.promptTokenIds, ...generatedTokenIds];
  const cached =
    spec.sampling.isPromptScored === true
      ? ready.map(() => 0)
      : cachedTokenCounts(tokenIds, spec.cacheSalt, ready.map(cacheOf));
  const fits = ready.map(({ hello: { envelope }, path }) =>
    fitFor(envelope.deviceKind, envelope.modelHash, kernelsId(path)),
  );
  const isComparable = fits.every((fit) => fit !== null);
  const places = ready.map((worker, index): Placement & { target: RouteTarget } => {
    const { envelope } = worker.hello;
    const { kvBlockSize } = envelope;
    const cachedTokenCount = cached[index] ?? 0;
    const fit = fits[index];
    const ownMs =
      isComparable && fit
        ? prefillMs(fit, tokenIds.length, cachedTokenCount, worker.path.tokenBudget)
        : (tokenIds.length - cachedTokenCount) * NOMINAL_MS_PER_TOKEN;
    // One block more for its first tokens.
    const blockCount = Math.ceil(tokenIds.length / kvBlockSize) + 1 - cachedTokenCount / kvBlockSize;
    let pendingPrefillMs = 0;
    let pendingBlockCount = 0;
    for (const other of worker.open.values()) {
      pendingPrefillMs += other.pending?.prefillMs ?? 0;
      pendingBlockCount += other.pending?.blockCount ?? 0;
    }
    const target: RouteTarget = {
      pendingPrefillMs,
      ownPrefillMs: ownMs,
      cachedTokenCount,
      openCount: worker.open.size,
      hasRoom:
        worker.kvUsedBlockCount + pendingBlockCount + blockCount <= kvBlockCountOf(envelope, worker.path),
    };
    return { worker, prefillMs: ownMs, blockCount, target };
  });
  const chosen = chooseTarget(
    places.map(({ target }) => target),
    tokenIds.length,
  );
  return places[chosen] ?? null;
}

const cacheOf = ({ numericsId, blockHashes, hello }: JoinedWorker) => ({
  numericsId,
  blockSize: hello.envelope.kvBlockSize,
  blockHashes,
});
