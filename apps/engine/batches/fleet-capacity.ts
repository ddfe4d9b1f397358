/** What the workers' live paths can hold, for the pacing of lines. Pure. */
import type { WorkerView } from '../fleet/fleet.ts';
import type { PacingView } from './batch-pacing.ts';

export function fleetCapacity(
  workers: readonly Pick<WorkerView, 'path' | 'envelope' | 'kvUsedBlockCount'>[],
): Pick<PacingView, 'slotCount' | 'kvUsedShare'> {
  const sum = (of: (worker: (typeof workers)[number]) => number): number =>
    workers.reduce((total, worker) => total + of(worker), 0);
  const kvBlockCount = sum(({ envelope }) => envelope.kvBlockCount);
  return {
    slotCount: sum(({ path }) => path.maxRunningCount),
    kvUsedShare: kvBlockCount === 0 ? 0 : sum(({ kvUsedBlockCount }) => kvUsedBlockCount) / kvBlockCount,
  };
}
