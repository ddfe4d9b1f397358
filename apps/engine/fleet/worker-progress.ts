/**
 * Whether workers that have work make steps: a worker may answer heartbeats while its scheduler is stuck, and only progress
 * tells. Fed with step rows where they arrive, asked by /ready. Pure; times arrive as arguments.
 */
import type { StepRow } from '@variator/clickhouse/step-row';
import type { WorkerView } from './fleet.ts';

/** Far above the longest step of a large model on a slow machine. */
const STALLED_AFTER_MS = 30_000;

type Busyness = Pick<WorkerView, 'workerId' | 'bootId' | 'runningCount' | 'waitingCount'>;

interface Progress {
  readonly bootId: string;
  lastStepId: number;
  /** The last step when it was looked at before, and since when work has been seen to wait behind it; null: none has. */
  seenStepId: number;
  since: number | null;
}

export class WorkerProgress {
  readonly #byWorker = new Map<string, Progress>();

  stepSettled({
    workerId,
    bootId,
    kind,
    stepId,
  }: Pick<StepRow, 'workerId' | 'bootId' | 'kind' | 'stepId'>): void {
    // Calibration goes on beside a stuck scheduler.
    if (kind !== 'serve') return;
    const known = this.#byWorker.get(workerId);
    if (known?.bootId === bootId) known.lastStepId = stepId;
    else this.#byWorker.set(workerId, { bootId, lastStepId: stepId, seenStepId: -1, since: null });
  }

  /** For people; '' while at least one worker is idle or advances. Asked again and again: it compares with the last time. */
  stalledReason(workers: readonly Busyness[], now: number): string {
    const names = new Set(workers.map(({ workerId }) => workerId));
    for (const workerId of this.#byWorker.keys()) if (!names.has(workerId)) this.#byWorker.delete(workerId);
    const stalled = workers.flatMap((worker) => {
      const stalledMs = this.#stalledMs(worker, now);
      return stalledMs >= STALLED_AFTER_MS ? [{ worker, stalledMs }] : [];
    });
    const [first] = stalled;
    if (first === undefined || stalled.length < workers.length) return '';
    return `${first.worker.workerId} has ${first.worker.runningCount + first.worker.waitingCount} requests and has made no step for ${Math.round(first.stalledMs / 1000)} s.`;
  }

  #stalledMs({ workerId, bootId, runningCount, waitingCount }: Busyness, now: number): number {
    let progress = this.#byWorker.get(workerId);
    if (progress?.bootId !== bootId) {
      progress = { bootId, lastStepId: 0, seenStepId: 0, since: null };
      this.#byWorker.set(workerId, progress);
    }
    if (runningCount + waitingCount === 0) progress.since = null;
    else if (progress.since === null || progress.seenStepId !== progress.lastStepId) progress.since = now;
    progress.seenStepId = progress.lastStepId;
    return progress.since === null ? 0 : now - progress.since;
  }
}
