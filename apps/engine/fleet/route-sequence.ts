/**
 * Which worker gets a sequence: gathers what packages/scheduler/place-sequence.ts decides from. Called by worker-fleet.ts for
 * every placement. With one worker there is nothing to decide and nothing is hashed.
 */
import { kernelsId, kvBlockCountOf } from '@variator/kernels/execution-path';
import { type PendingPrefill, placeSequence, type RouteWorker } from '@variator/scheduler/place-sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { JoinedWorker } from './joined-worker.ts';
import type { OpenSequence } from './open-sequences.ts';

export type FitFor = (deviceKind: string, modelHash: string, kernelsId: string) => StepTimeFit | null;

export interface Placement extends PendingPrefill {
  readonly worker: JoinedWorker;
}

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
  const routed = {
    tokenIds:
      generatedTokenIds.length === 0 ? spec.promptTokenIds : [...spec.promptTokenIds, ...generatedTokenIds],
    cacheSalt: spec.cacheSalt,
    mayUseCache: spec.sampling.isPromptScored !== true,
  };
  const place = placeSequence(
    routed,
    ready.map((worker) => asRouteWorker(worker, fitFor)),
  );
  const worker = place === null ? undefined : ready[place.index];
  if (place === null || worker === undefined) return null;
  return { worker, prefillMs: place.prefillMs, blockCount: place.blockCount };
}

function asRouteWorker(worker: JoinedWorker, fitFor: FitFor): RouteWorker {
  const { hello, path, numericsId, blockHashes, kvUsedBlockCount, open } = worker;
  const { deviceKind, modelHash, kvBlockSize } = hello.envelope;
  return {
    ...{ numericsId, blockHashes, kvUsedBlockCount },
    kvBlockCount: kvBlockCountOf(hello.envelope, path),
    blockSize: kvBlockSize,
    fit: fitFor(deviceKind, modelHash, kernelsId(path)),
    tokenBudget: path.tokenBudget,
    openCount: open.size,
    pending: [...open.values()].flatMap(({ pending }) => (pending === null ? [] : [pending])),
  };
}
