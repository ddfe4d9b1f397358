/**
 * Counts the scheduler's books against each other: who holds which KV block, who is open. Called through
 * Scheduler.audit by tests and by an idle worker. Repairs nothing.
 */
import type { SchedulerState } from './compose.ts';

export function auditState(state: SchedulerState): string[] {
  const { tables, running, waiting, open } = state;
  const faults: string[] = [];
  const holders = new Map<number, number>();
  for (const { spec, blockTable, computedTokenCount } of running) {
    for (const blockId of blockTable) holders.set(blockId, (holders.get(blockId) ?? 0) + 1);
    if (new Set(blockTable).size !== blockTable.length) {
      faults.push(`${spec.sequenceId} has a KV block twice.`);
    }
    if (blockTable.length < tables.blocksFor(computedTokenCount)) {
      faults.push(`${spec.sequenceId} has computed more tokens than its KV blocks hold.`);
    }
  }
  for (let blockId = 0; blockId < tables.blockCount; blockId += 1) {
    const held = holders.get(blockId) ?? 0;
    const counted = tables.referenceCount(blockId);
    if (held !== counted) faults.push(`KV block ${blockId} counts ${counted} holders and has ${held}.`);
  }
  if (holders.size !== tables.usedCount) {
    faults.push(`${tables.usedCount} KV blocks count as used and ${holders.size} are held.`);
  }
  if (running.length + waiting.count !== open.size) {
    faults.push(`${open.size} sequences are open, and not all of them run or wait.`);
  }
  return faults;
}
