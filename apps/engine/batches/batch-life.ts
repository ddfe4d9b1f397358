/**
 * The life of a batch as a reducer. open-batches.ts stores every state before it acts on it, so a restart goes on from the
 * stored one. Pure: it asks no clock and touches no file.
 *
 *   validating --validated--> in_progress --linesDone--> finalizing --assembled--> completed
 *     |     \                  |     \                    ^     \
 *     |      \ windowPassed    |      \ windowPassed      |      \ assembled, isOverdue
 *     |       \                |       `------------------'       `---------------> expired
 *     |        `--> expired    | cancelAsked
 *     |                        v
 *     `---- cancelAsked ---> cancelling --assembled--> cancelled
 *
 *   failed: from any of these, where the input cannot be run
 */
import {
  type Batch,
  type BatchStatus,
  type InputFault,
  type LineCounts,
  type LineUsage,
  noUsage,
} from './batch.ts';

export type BatchEvent =
  | { readonly kind: 'validated'; readonly at: number; readonly lineCount: number; readonly model: string }
  /** The input file cannot be run, or not any more. */
  | { readonly kind: 'failed'; readonly at: number; readonly faults: readonly InputFault[] }
  /** Every line has its result. */
  | { readonly kind: 'linesDone'; readonly at: number }
  | { readonly kind: 'cancelAsked'; readonly at: number }
  /** `expiresAt` is over. */
  | { readonly kind: 'windowPassed'; readonly at: number }
  /** Output and error file stand; null where one would be empty. */
  | {
      readonly kind: 'assembled';
      readonly at: number;
      readonly outputFileId: string | null;
      readonly errorFileId: string | null;
      readonly counts: LineCounts;
      readonly usage: LineUsage;
    };

/** An event that this state cannot take; a broken invariant of the driver. */
export class BatchLifeError extends Error {
  override readonly name = 'BatchLifeError';
}

const ends: readonly BatchStatus[] = ['failed', 'completed', 'expired', 'cancelled'];

export const hasEnded = (batch: Batch): boolean => ends.includes(batch.status);

/** What is asked of a batch that has come this far changes nothing. */
export const canCancel = (batch: Batch): boolean =>
  batch.status === 'validating' || batch.status === 'in_progress' || batch.status === 'cancelling';

export function beginBatch(
  asked: Pick<
    Batch,
    'batchId' | 'tenant' | 'keyId' | 'endpoint' | 'inputFileId' | 'metadata' | 'outputExpiresAfterMs'
  >,
  window: { readonly createdAt: number; readonly expiresAt: number },
): Batch {
  return {
    ...asked,
    ...window,
    status: 'validating',
    model: '',
    inProgressAt: null,
    finalizingAt: null,
    completedAt: null,
    failedAt: null,
    expiredAt: null,
    cancellingAt: null,
    cancelledAt: null,
    isOverdue: false,
    faults: [],
    outputFileId: null,
    errorFileId: null,
    counts: { total: 0, completed: 0, failed: 0 },
    usage: noUsage,
  };
}

/** @throws BatchLifeError for an event that the state cannot take; what comes late after an end changes nothing */
export function advance(batch: Batch, event: BatchEvent): Batch {
  if (hasEnded(batch)) return batch;
  const { at } = event;
  switch (event.kind) {
    case 'validated':
      expectStatus(batch, event, 'validating');
      return {
        ...batch,
        status: 'in_progress',
        inProgressAt: at,
        model: event.model,
        counts: { total: event.lineCount, completed: 0, failed: 0 },
      };
    case 'failed':
      return { ...batch, status: 'failed', failedAt: at, faults: event.faults };
    case 'linesDone':
      expectStatus(batch, event, 'in_progress');
      return { ...batch, status: 'finalizing', finalizingAt: at };
    case 'cancelAsked':
      return canCancel(batch) && batch.status !== 'cancelling'
        ? { ...batch, status: 'cancelling', cancellingAt: at }
        : batch;
    case 'windowPassed':
      if (batch.status === 'validating')
        return { ...batch, status: 'expired', expiredAt: at, isOverdue: true };
      return batch.status === 'in_progress'
        ? { ...batch, status: 'finalizing', finalizingAt: at, isOverdue: true }
        : batch;
    case 'assembled': {
      expectStatus(batch, event, 'finalizing', 'cancelling');
      const { outputFileId, errorFileId, counts, usage } = event;
      const held = { ...batch, outputFileId, errorFileId, counts, usage };
      if (batch.status === 'cancelling') return { ...held, status: 'cancelled', cancelledAt: at };
      if (batch.isOverdue) return { ...held, status: 'expired', expiredAt: at };
      return { ...held, status: 'completed', completedAt: at };
    }
    default:
      return event satisfies never;
  }
}

function expectStatus(batch: Batch, event: BatchEvent, ...wanted: readonly BatchStatus[]): void {
  if (wanted.includes(batch.status)) return;
  throw new BatchLifeError(`Batch ${batch.batchId} is ${batch.status} and cannot take "${event.kind}".`);
}
