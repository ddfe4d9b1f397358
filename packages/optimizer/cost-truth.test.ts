/** The gate of cost: within 15 % of the device time that is spared when the request is left out, below 0.7 load. */
import { expect, test } from 'vitest';
import { costTruth, workloads } from './cost-truth.fixture.ts';

const seeds = [1, 2, 3, 4, 5];

test('the marginal price is what leaving a request out spares, where work is its own and where it is shared', () => {
  const own = costTruth(workloads['long prompts'], seeds);
  const shared = costTruth(workloads.chats, seeds);
  for (const { load, trueMs, marginalMs } of [own, shared]) {
    expect(load).toBeLessThan(0.7);
    expect(load).toBeGreaterThan(0.3);
    expect(Math.abs(marginalMs / trueMs - 1)).toBeLessThanOrEqual(0.15);
  }
  // Charges add up to the whole, the shared weight read with it: near the truth where that is small, above it elsewhere.
  expect(Math.abs(own.attributedMs / own.trueMs - 1)).toBeLessThanOrEqual(0.15);
  expect(shared.attributedMs).toBeGreaterThan(shared.marginalMs);
});
