/** What was considered becomes points by role, and a curve where three of them differ in one setting alone. */
import { expect, test } from 'vitest';
import type { Proposal } from '../api.ts';
import { settingCurve, whatIfPaths } from './what-if-paths.ts';

type Changes = Proposal['changes'];

const from = {
  linear: 'linear.int8-generic',
  attention: 'attention.reference',
  threadCount: 2,
  tokenBudget: 128,
  maxRunningCount: 16,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
} as const;
const budget = (to: number): Changes[number] => ({ setting: 'tokenBudget', from: 128, to });
const running: Changes[number] = { setting: 'maxRunningCount', from: 16, to: 32 };
const considered = (
  changes: Changes,
  value: number,
  interval: { low: number; high: number } | null = null,
) => ({
  changes,
  metrics: [{ metric: 'deviceMsPerRequest' as const, value, interval }],
  keepsObjectives: value < 100,
});
const evidence = {
  windowStartedAt: 0,
  windowEndedAt: 1,
  requestCount: 1,
  stepCount: 1,
  regimeId: '',
  regimeName: '',
  fitIds: [],
};
const proposal = {
  from,
  changes: [budget(256)],
  evidence: {
    ...evidence,
    considered: [
      considered([], 100, { low: 95, high: 104 }),
      considered([budget(512)], 80),
      considered([budget(256)], 85, { low: 82, high: 90 }),
      considered([running, budget(256)], 84),
      considered([running], 99),
    ],
  },
};

test('the present path and the proposed one are known among those considered', () => {
  const paths = whatIfPaths(proposal);
  expect(paths.map(({ role }) => role)).toEqual(['now', 'other', 'proposed', 'other', 'other']);
  expect(paths[2]?.figureOf('deviceMsPerRequest')).toEqual({
    value: 85,
    low: 82,
    high: 90,
    hasInterval: true,
  });
  expect(paths[1]?.figureOf('deviceMsPerRequest')).toEqual({
    value: 80,
    low: 80,
    high: 80,
    hasInterval: false,
  });
  expect(paths[1]?.figureOf('itlP99Ms')).toBeNull();
  expect(paths[0]?.keepsObjectives).toBe(false);
});

test('the order in which changes are listed does not matter', () => {
  const both = { ...proposal, changes: [budget(256), running] };
  expect(whatIfPaths(both).map(({ role }) => role)).toEqual(['now', 'other', 'other', 'proposed', 'other']);
});

test('paths that are as proposed but for one setting make a curve in its order, the present one among them', () => {
  const curve = settingCurve(proposal);
  expect(curve?.setting).toBe('tokenBudget');
  expect(curve?.points.map(({ at, path }) => [at, path.role])).toEqual([
    [128, 'now'],
    [256, 'proposed'],
    [512, 'other'],
  ]);
});

test('the curve may be along a setting that the proposal leaves as it is', () => {
  const wide = (to: number): Changes[number] => ({ ...running, to });
  const curve = settingCurve({
    ...proposal,
    evidence: {
      ...evidence,
      considered: [
        considered([], 100),
        considered([budget(256), wide(64)], 83),
        considered([budget(256), wide(32)], 84),
        considered([budget(256)], 85),
      ],
    },
  });
  expect(curve?.setting).toBe('maxRunningCount');
  expect(curve?.points.map(({ at, path }) => [at, path.role])).toEqual([
    [16, 'proposed'],
    [32, 'other'],
    [64, 'other'],
  ]);
});

test('the curve may be along how many guesses a step verifies', () => {
  const guesses = (to: number): Changes[number] => ({ setting: 'draftTokenCount', from: 0, to });
  const curve = settingCurve({
    ...proposal,
    changes: [guesses(8)],
    evidence: {
      ...evidence,
      considered: [considered([], 100), considered([guesses(8)], 60), considered([guesses(4)], 70)],
    },
  });
  expect(curve?.setting).toBe('draftTokenCount');
  expect(curve?.points.map(({ at, path }) => [at, path.role])).toEqual([
    [0, 'now'],
    [4, 'other'],
    [8, 'proposed'],
  ]);
});

test('two points are no curve, and a proposal from before has nothing to draw', () => {
  expect(settingCurve({ ...proposal, changes: [running] })).toBeNull();
  expect(whatIfPaths({ changes: proposal.changes, evidence })).toEqual([]);
  expect(settingCurve({ ...proposal, evidence })).toBeNull();
});
