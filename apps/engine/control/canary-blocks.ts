/**
 * Collects a canary's step rows by block and judges each pair when both its blocks are over. Called by rollout-driver.ts
 * with rows as they arrive. Pure: no clock, no I/O; what to do with a pair is the reducer's.
 */
import type { StepRow } from '@variator/clickhouse/step-row';
import { pathId } from '@variator/kernels/execution-path';
import {
  freezePrices,
  judgePair,
  type PairResult,
  type StandardPrices,
} from '@variator/optimizer/canary-judge';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { RolloutOpening } from './rollout-record.ts';

/** Steps a block may be judged by; a block of minutes has fewer. */
const MOST_STEPS_PER_BLOCK = 50_000;
/** The incumbent's newest steps, which say what is typical when prices are frozen. */
const MOST_TYPICAL_STEPS = 500;

export type PairOutcome = { readonly pairIndex: number; readonly pair: PairResult | null };

export interface CanaryBlocks {
  /** Takes rows in the order of their steps; others' rows are left out. */
  take(rows: readonly StepRow[]): void;
  /** The pairs, in order, whose blocks are over and which were not given before. A null pair had too few steps. */
  judge(isPlanOver: boolean): PairOutcome[];
}

export function canaryBlocks(
  opening: RolloutOpening,
  sides: readonly ('control' | 'candidate')[],
  fitOfIncumbent: () => StepTimeFit,
): CanaryBlocks {
  const controlPathId = pathId(opening.from);
  const candidatePathId = pathId(opening.to);
  const pairCount = sides.length / 2;
  const stepsOf = new Map<number, StepRow[]>();
  let typicalSteps: StepRow[] = [];
  let prices: StandardPrices | null = null;
  let newestBlock = -1;
  let nextPair = 0;

  const stepsOfPair = (pairIndex: number, side: 'control' | 'candidate') => {
    const block = sides[2 * pairIndex] === side ? 2 * pairIndex : 2 * pairIndex + 1;
    return stepsOf.get(block) ?? [];
  };

  return {
    take(rows) {
      for (const row of rows) {
        if (row.workerId !== opening.workerId || row.kind !== 'serve') continue;
        if (prices === null && row.pathId === controlPathId && !row.isSettling) typicalSteps.push(row);
        if (row.rolloutId !== opening.rolloutId || row.blockIndex < 0) continue;
        newestBlock = Math.max(newestBlock, row.blockIndex);
        const steps = stepsOf.get(row.blockIndex) ?? [];
        if (steps.length < MOST_STEPS_PER_BLOCK) steps.push(row);
        stepsOf.set(row.blockIndex, steps);
      }
      typicalSteps = typicalSteps.slice(-MOST_TYPICAL_STEPS);
    },
    judge(isPlanOver) {
      const outcomes: PairOutcome[] = [];
      while (nextPair < pairCount && (isPlanOver || newestBlock > 2 * nextPair + 1)) {
        // Frozen at the first pair, then the same for both sides of every pair.
        if (prices === null) {
          prices = freezePrices(fitOfIncumbent(), typicalSteps);
          typicalSteps = [];
        }
        const pair = judgePair({
          pairIndex: nextPair,
          controlSteps: stepsOfPair(nextPair, 'control'),
          candidateSteps: stepsOfPair(nextPair, 'candidate'),
          controlPathId,
          candidatePathId,
          prices,
          itlObjectiveMs: opening.judgingPlan.itlObjectiveMs,
          leastStepsPerBlock: opening.leastStepsPerBlock,
        });
        outcomes.push({ pairIndex: nextPair, pair });
        stepsOf.delete(2 * nextPair);
        stepsOf.delete(2 * nextPair + 1);
        nextPair += 1;
      }
      return outcomes;
    },
  };
}
