/** Checks what the scheduler's caller sets: pool sizes and limits. Used by scheduler.ts alone. */
import type { SchedulerLimits } from './compose.ts';

/** A call that breaks the scheduler's contract: a wrong order of calls, an id used twice, limits out of range. */
export class SchedulerError extends Error {
  override readonly name = 'SchedulerError';
}

/** @throws SchedulerError */
export function checkedLimits(limits: SchedulerLimits): SchedulerLimits {
  assertCount('tokenBudget', limits.tokenBudget);
  assertCount('maxRunningCount', limits.maxRunningCount);
  const { tokenBudget, maxRunningCount, draftTokenCount = 0 } = limits;
  if (!Number.isInteger(draftTokenCount) || draftTokenCount < 0) {
    throw new SchedulerError(`draftTokenCount must be a whole number of 0 or more, not ${draftTokenCount}.`);
  }
  return { tokenBudget, maxRunningCount, draftTokenCount };
}

/** @throws SchedulerError */
export function assertCount(name: string, value: number): void {
  if (!Number.isInteger(value) || value < 1) {
    throw new SchedulerError(`${name} must be a whole number of 1 or more, not ${value}.`);
  }
}
