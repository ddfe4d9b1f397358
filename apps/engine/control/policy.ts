/**
 * The policy: its defaults, its ranges and how a change is merged into it. Called by open-control.ts and by the API's input
 * checks. Keeps only what people changed, so that a default (or the price given at start) still applies elsewhere.
 */
import { z } from 'zod';
import { ControlError } from './control-error.ts';
import type { Policy } from './control-types.ts';

export const DEFAULT_DEVICE_USD_PER_HOUR = 0.08;

export function defaultPolicy(deviceUsdPerHour: number = DEFAULT_DEVICE_USD_PER_HOUR): Policy {
  return {
    autonomy: 'oneClick',
    objectives: { ttftMs: 2000, itlMs: 50 },
    canary: {
      blockDurationMs: 8000,
      leastPairCount: 4,
      leastPairCountToPromote: 8,
      mostPairCount: 12,
      leastStepsPerBlock: 8,
      itlGuardRatio: 1.5,
    },
    calibrationShare: 0.02,
    deviceUsdPerHour,
  };
}

const AUTOMATIC_REFUSAL =
  'autonomy "automatic" waits until rollouts have been proved to roll back by themselves; choose "observe" or "oneClick".';

const range = (least: number, most: number) => z.number().min(least).max(most).optional();
const count = (least: number, most: number) => z.number().int().min(least).max(most).optional();

/** A change of the policy: any part of it, every value within its range, unknown keys refused. */
export const policyChangeSchema = z.strictObject({
  autonomy: z
    .enum(['observe', 'oneClick'], {
      error: ({ input }) => (input === 'automatic' ? AUTOMATIC_REFUSAL : undefined),
    })
    .optional(),
  objectives: z.strictObject({ ttftMs: range(1, 600_000), itlMs: range(1, 60_000) }).optional(),
  canary: z
    .strictObject({
      blockDurationMs: count(100, 600_000),
      leastPairCount: count(2, 60),
      leastPairCountToPromote: count(2, 60),
      mostPairCount: count(2, 60),
      leastStepsPerBlock: count(1, 10_000),
      itlGuardRatio: range(1.05, 10),
    })
    .optional(),
  calibrationShare: range(0, 0.02),
  deviceUsdPerHour: range(0, 1000),
});
export type PolicyChange = z.infer<typeof policyChangeSchema>;

/** What is set in `change` replaces what is set in `before`, leaf by leaf. */
export function mergeChanges(before: PolicyChange, change: PolicyChange): PolicyChange {
  return {
    ...before,
    ...change,
    ...(before.objectives || change.objectives
      ? { objectives: { ...before.objectives, ...change.objectives } }
      : {}),
    ...(before.canary || change.canary ? { canary: { ...before.canary, ...change.canary } } : {}),
  };
}

/** @throws ControlError where two settings contradict each other */
export function applyChanges(defaults: Policy, changes: PolicyChange): Policy {
  const { objectives, canary } = defaults;
  const policy: Policy = {
    autonomy: changes.autonomy ?? defaults.autonomy,
    objectives: {
      ttftMs: changes.objectives?.ttftMs ?? objectives.ttftMs,
      itlMs: changes.objectives?.itlMs ?? objectives.itlMs,
    },
    canary: {
      blockDurationMs: changes.canary?.blockDurationMs ?? canary.blockDurationMs,
      leastPairCount: changes.canary?.leastPairCount ?? canary.leastPairCount,
      leastPairCountToPromote: changes.canary?.leastPairCountToPromote ?? canary.leastPairCountToPromote,
      mostPairCount: changes.canary?.mostPairCount ?? canary.mostPairCount,
      leastStepsPerBlock: changes.canary?.leastStepsPerBlock ?? canary.leastStepsPerBlock,
      itlGuardRatio: changes.canary?.itlGuardRatio ?? canary.itlGuardRatio,
    },
    calibrationShare: changes.calibrationShare ?? defaults.calibrationShare,
    deviceUsdPerHour: changes.deviceUsdPerHour ?? defaults.deviceUsdPerHour,
  };
  if (policy.canary.leastPairCount > policy.canary.mostPairCount) {
    throw new ControlError(
      'invalid',
      `canary.leastPairCount ${policy.canary.leastPairCount} is above canary.mostPairCount ${policy.canary.mostPairCount}.`,
    );
  }
  return policy;
}
