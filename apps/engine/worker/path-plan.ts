/**
 * Which path the worker runs now, and why: the promoted path, or a block of a canary's plan. Pure; the step loop asks at
 * every step border. A switch or a plan never drops a sequence: only limits, kernels and the cache's salt change.
 *
 *   promoted --alternate--> block 0 --time--> block 1 ... --time--> promoted (the incumbent)
 */
import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import type { PathBlock } from '../fleet/link-frames.ts';

export interface CanaryPlan {
  readonly rolloutId: string;
  readonly incumbent: ExecutionPath;
  readonly candidate: ExecutionPath;
  readonly blocks: readonly PathBlock[];
}

export interface PathPlan {
  /** Outside a plan, and after one. */
  readonly promoted: ExecutionPath;
  readonly live: ExecutionPath;
  readonly rolloutId: string;
  /** -1 outside a plan. */
  readonly blockIndex: number;
  /** When the block began, by the caller's clock. */
  readonly blockStartedAt: number;
  readonly plan: CanaryPlan | null;
}

export interface PlanStep {
  readonly state: PathPlan;
  /** The plan that ended at this border, with how many of its blocks ran to their end. */
  readonly ended: { readonly rolloutId: string; readonly completedBlockCount: number } | null;
}

export function startOn(path: ExecutionPath): PathPlan {
  return { promoted: path, live: path, rolloutId: '', blockIndex: -1, blockStartedAt: 0, plan: null };
}

/** Promotes a path now; a plan under way ends with it. */
export function switchTo(state: PathPlan, path: ExecutionPath): PlanStep {
  return { state: startOn(path), ended: endOf(state) };
}

/** Begins a plan now (its first block), or with no blocks ends the one under way. */
export function alternate(state: PathPlan, plan: CanaryPlan, now: number): PlanStep {
  const ended = endOf(state);
  if (plan.blocks.length === 0) {
    return {
      state: startOn(state.promoted),
      ended: ended ?? { rolloutId: plan.rolloutId, completedBlockCount: 0 },
    };
  }
  const begun: PathPlan = { ...startOn(plan.incumbent), rolloutId: plan.rolloutId, plan };
  return { state: atBlock(begun, plan, 0, now), ended };
}

/** What time has done to the plan since the last border. */
export function advance(state: PathPlan, now: number): PlanStep {
  const { plan } = state;
  const block = plan?.blocks[state.blockIndex];
  if (!plan || !block || now - state.blockStartedAt < block.durationMs) return { state, ended: null };
  const next = state.blockIndex + 1;
  if (next < plan.blocks.length) return { state: atBlock(state, plan, next, now), ended: null };
  return { state: startOn(state.promoted), ended: { rolloutId: plan.rolloutId, completedBlockCount: next } };
}

/** Milliseconds until time alone would change something; null when it would not. */
export function untilNextBorderMs(state: PathPlan, now: number): number | null {
  const block = state.plan?.blocks[state.blockIndex];
  return block ? Math.max(0, state.blockStartedAt + block.durationMs - now) : null;
}

function atBlock(state: PathPlan, plan: CanaryPlan, blockIndex: number, now: number): PathPlan {
  const wanted = plan.blocks[blockIndex]?.pathId;
  const live = wanted === pathId(plan.candidate) ? plan.candidate : plan.incumbent;
  return { ...state, live, blockIndex, blockStartedAt: now };
}

function endOf(state: PathPlan): PlanStep['ended'] {
  return state.plan
    ? { rolloutId: state.plan.rolloutId, completedBlockCount: Math.max(0, state.blockIndex) }
    : null;
}
