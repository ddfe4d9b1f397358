import { type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import { describe, expect, it } from 'vitest';
import { advance, alternate, type CanaryPlan, startOn, switchTo, untilNextBorderMs } from './path-plan.ts';

const incumbent: ExecutionPath = {
  linear: 'linear.reference',
  attention: 'attention.reference',
  threadCount: 2,
  tokenBudget: 64,
  maxRunningCount: 1,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
};
const candidate: ExecutionPath = { ...incumbent, maxRunningCount: 8 };
const plan: CanaryPlan = {
  rolloutId: 'r1',
  incumbent,
  candidate,
  blocks: [
    { pathId: pathId(candidate), durationMs: 100 },
    { pathId: pathId(incumbent), durationMs: 50 },
  ],
};

describe('the path plan', () => {
  it('runs the promoted path outside a canary', () => {
    const state = startOn(incumbent);
    expect(advance(state, 1e9)).toEqual({ state, ended: null });
    expect(untilNextBorderMs(state, 0)).toBeNull();
  });

  it('walks through the blocks by time and goes back to the incumbent', () => {
    let { state } = alternate(startOn(incumbent), plan, 1000);
    expect([state.live, state.blockIndex, state.rolloutId]).toEqual([candidate, 0, 'r1']);
    expect(untilNextBorderMs(state, 1040)).toBe(60);
    expect(advance(state, 1099).state).toBe(state);
    ({ state } = advance(state, 1100));
    expect([state.live, state.blockIndex]).toEqual([incumbent, 1]);
    const last = advance(state, 1150);
    expect(last.ended).toEqual({ rolloutId: 'r1', completedBlockCount: 2 });
    expect([last.state.live, last.state.blockIndex, last.state.rolloutId]).toEqual([incumbent, -1, '']);
  });

  it('ends a plan at once when told to, saying how far it came', () => {
    let { state } = alternate(startOn(incumbent), plan, 0);
    ({ state } = advance(state, 100));
    const stopped = alternate(state, { ...plan, blocks: [] }, 120);
    expect(stopped.ended).toEqual({ rolloutId: 'r1', completedBlockCount: 1 });
    expect(stopped.state.live).toEqual(incumbent);
  });

  it('ends a plan when another path is promoted', () => {
    const { state } = alternate(startOn(incumbent), plan, 0);
    const promoted = switchTo(state, candidate);
    expect(promoted.ended).toEqual({ rolloutId: 'r1', completedBlockCount: 0 });
    expect(promoted.state).toEqual(startOn(candidate));
  });
});
