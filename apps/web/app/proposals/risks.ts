/**
 * What could go wrong with a proposed path and what guards it, in sentences that follow from the settings it changes.
 * Pure; called by the proposal card. Promises only guards that the control plane has.
 */
import type { Policy, Proposal } from '../../api.ts';
import { formatAge, formatFactor, formatMs } from '../../format.ts';

export interface Risk {
  readonly risk: string;
  readonly guard: string;
}

export function risksOf({ from, to }: Pick<Proposal, 'from' | 'to'>, policy: Policy | undefined): Risk[] {
  const risks: Risk[] = [];
  const itlGuard =
    policy === undefined
      ? 'The canary is rolled back by itself when ITL p99 rises too far.'
      : `Rolled back by itself when ITL p99 is above ${formatFactor(policy.canary.itlGuardRatio)} that of the old path in two pairs running; the objective is ${formatMs(policy.objectives.itlMs)}.`;
  const isOtherKernels = from.linear !== to.linear || from.attention !== to.attention;
  if (isOtherKernels || from.splitTokens !== to.splitTokens) {
    risks.push({
      risk: 'Other kernels may answer with other tokens.',
      guard:
        'A set of prompts runs on both paths before any traffic does; too little agreement ends it there.',
    });
  }
  if (to.tokenBudget > from.tokenBudget) {
    risks.push({ risk: 'A long prompt makes a step longer, so streams may stutter.', guard: itlGuard });
  }
  if (to.tokenBudget < from.tokenBudget) {
    risks.push({
      risk: 'Long prompts are computed in more steps, so TTFT may rise.',
      guard: 'TTFT is compared before and after; it ranks paths and does not stop a rollout.',
    });
  }
  if (to.maxRunningCount > from.maxRunningCount) {
    risks.push({ risk: 'More sequences share a step and the KV cache.', guard: itlGuard });
  }
  if (to.maxRunningCount < from.maxRunningCount || to.threadCount < from.threadCount) {
    risks.push({
      risk: 'Requests may wait longer for their turn.',
      guard: 'Cost is judged in pairs; a path that is worse goes back by itself.',
    });
  }
  if (to.draftTokenCount > from.draftTokenCount) {
    risks.push({
      risk: 'Wrong guesses cost device time.',
      guard:
        'Each step verifies as many as the step-time model says pay, and none where that is nothing; the canary counts right ones alone as work.',
    });
  }
  const pairs =
    policy === undefined
      ? 'The canary compares both paths in pairs of blocks'
      : `The canary compares both paths in ${policy.canary.leastPairCount} to ${policy.canary.mostPairCount} pairs of ${inBlockWords(policy.canary.blockDurationMs)} blocks`;
  risks.push({
    risk: 'The prediction may be wrong.',
    guard: `${pairs}, in random order, and judges by measured cost.`,
  });
  return risks;
}

const inBlockWords = (durationMs: number): string =>
  durationMs < 1000 ? formatMs(durationMs) : formatAge(durationMs);
