/** Every change of a path that can hurt is named with its guard. */
import { expect, test } from 'vitest';
import { risksOf } from './risks.ts';

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

test('a larger token budget is guarded by ITL, with the policy’s own numbers', () => {
  const policy = {
    autonomy: 'oneClick',
    objectives: { ttftMs: 2000, itlMs: 100 },
    canary: {
      blockDurationMs: 8000,
      leastPairCount: 4,
      leastPairCountToPromote: 8,
      mostPairCount: 12,
      leastStepsPerBlock: 8,
      itlGuardRatio: 1.5,
    },
    calibrationShare: 0.02,
    deviceUsdPerHour: 0.08,
  } as const;
  const risks = risksOf({ from, to: { ...from, tokenBudget: 512 } }, policy);
  expect(risks).toHaveLength(2);
  expect(risks[0]?.guard).toContain('1.5x');
  expect(risks[0]?.guard).toContain('100 ms');
  expect(risks[1]?.guard).toContain('4 to 12 pairs of 8 s blocks');
});

test('other kernels are guarded by the equality check', () => {
  const risks = risksOf({ from, to: { ...from, linear: 'linear.reference' } }, undefined);
  expect(risks[0]?.risk).toContain('other tokens');
});

test('more guesses may cost time, fewer may not, and neither changes tokens', () => {
  const more = risksOf({ from, to: { ...from, draftTokenCount: 8 } }, undefined);
  expect(more[0]?.risk).toBe('Wrong guesses cost device time.');
  expect(more.some(({ risk }) => risk.includes('other tokens'))).toBe(false);
  expect(risksOf({ from: { ...from, draftTokenCount: 8 }, to: from }, undefined)).toHaveLength(1);
});

test('that a prediction may be wrong is always said', () => {
  expect(risksOf({ from, to: from }, undefined)).toHaveLength(1);
});
