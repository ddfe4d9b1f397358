import { expect, test } from 'vitest';
import { policies, runFleet } from './fleet-run.fixture.ts';
import { agentsAndChats } from './fleet-traffic.fixture.ts';

// `npm run bench -- optimizer routing` compares more policies at three loads.
test('behind the gateway’s router sessions come back to their prefix, and no worker has twice the load of another', () => {
  const traffic = { mix: agentsAndChats, sessionsPerSecond: 1.4, spanMs: 60_000, seed: 1 };
  const [ours, again, turns] = ['gateway', 'gateway', 'round robin'].map((name) => {
    const policy = policies[name];
    if (policy === undefined) throw new Error(name);
    return runFleet({ traffic, policy: policy() });
  });
  expect(again).toEqual(ours);
  expect(ours?.requestCount).toBeGreaterThan(150);
  expect(ours?.cachedShare).toBeGreaterThan((turns?.cachedShare ?? 1) + 0.2);
  expect(ours?.deviceMsPerRequest).toBeLessThan(0.85 * (turns?.deviceMsPerRequest ?? 0));
  expect(ours?.goodShare).toBeGreaterThan(turns?.goodShare ?? 1);
  expect(ours?.loadRatio).toBeLessThan(2);
});
