import { pathId } from '@variator/kernels/execution-path';
import { expect, test } from 'vitest';
import { draft } from './fixtures/scripted-fleet.ts';
import { defaultPolicy } from './policy.ts';
import { foldRecord, judgingPlanOf, ledgerEntryOf, type RolloutOpening } from './rollout-record.ts';

const policy = defaultPolicy();
const earlierGaps = { count: 800, lateCount: 2, objectiveMs: 50, canaryCount: 2, lastAt: 1000 };
const remembering = { ...draft, evidence: { ...draft.evidence, earlierGaps } };

test('a plan counts on from gaps of the same objective, and not where the objective has changed since', () => {
  expect(judgingPlanOf(draft, policy).earlierGaps).toBeUndefined();
  expect(judgingPlanOf(remembering, policy)).toMatchObject({ itlObjectiveMs: 50, earlierGaps });
  const stricter = { ...policy, objectives: { ...policy.objectives, itlMs: 40 } };
  expect(judgingPlanOf(remembering, stricter).earlierGaps).toBeUndefined();
});

test('the ledger keeps the gaps of both sides, and what was cut short has lost nothing', () => {
  const opening: RolloutOpening = {
    ...{ kind: 'begun', at: 1, rolloutId: 'r', proposalId: 'p', workerId: 'w', title: '', regimeName: '' },
    ...{ regimeId: 'regime-1', from: draft.from, to: draft.to, approvedBy: 'ada', seed: 1, predicted: [] },
    ...{ judgingPlan: judgingPlanOf(draft, policy), blockDurationMs: 8000, leastStepsPerBlock: 8 },
    incumbentRolloutId: '',
  };
  const pair = {
    ...{ pairIndex: 0, controlCost: 1, candidateCost: 1, logCostRatio: 0, controlItlP99Ms: 40 },
    ...{ candidateItlP99Ms: 30, controlStepCount: 90, candidateStepCount: 90 },
    ...{ controlGaps: { count: 70, lateCount: 1 }, candidateGaps: { count: 80, lateCount: 0 } },
  };
  const { tried } = ledgerEntryOf(
    foldRecord(
      [
        opening,
        { kind: 'prepared', at: 2, prepareMs: 1 } as const,
        { kind: 'checked', at: 3, summary: '' } as const,
        { kind: 'pairJudged', at: 4, pair } as const,
        { kind: 'rolledBack', at: 5, by: 'optimizer', reason: 'the workload has changed.' } as const,
      ].map((event) => ({ at: event.at, event })),
    ),
  );
  expect(tried?.isCutShort).toBe(true);
  expect(tried?.lateGaps?.map(({ path, ...gaps }) => ({ pathId: pathId(path), ...gaps }))).toEqual([
    { pathId: pathId(draft.from), objectiveMs: 50, count: 70, lateCount: 1 },
    { pathId: pathId(draft.to), objectiveMs: 50, count: 80, lateCount: 0 },
  ]);
});
