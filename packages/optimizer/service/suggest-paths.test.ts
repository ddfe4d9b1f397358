import type { TelemetryClient } from '@variator/clickhouse/client';
import { expect, test } from 'vitest';
import type { Gateway } from './gateway.ts';
import type { FitLearner } from './learn-fits.ts';
import type { RegimeMarker } from './mark-regimes.ts';
import { createPathSuggester } from './suggest-paths.ts';

interface Open {
  readonly proposalId: string;
  readonly state: string;
  readonly evidence: { readonly regimeId: string };
}

/** A service beside one canary: `ended` are the rollouts that it took back, `withdrawn` the proposals. */
function beside(rolloutId: string, proposals: readonly Open[] = []) {
  const ended: string[] = [];
  const withdrawn: string[] = [];
  let regimeId = '';
  let isSuspended = false;
  const taken = new Map<string, string>();
  const list = (answer: unknown) => ({ list: { query: async () => answer } });
  const gateway = {
    workers: list([]),
    objectives: { get: { query: async () => ({}) } },
    ledger: list([]),
    proposals: {
      list: { query: async () => proposals },
      withdraw: { mutate: async (input: { proposalId: string }) => void withdrawn.push(input.proposalId) },
    },
    rollouts: {
      ...list([{ rolloutId, state: 'canary', workerId: 'w' }]),
      rollBack: { mutate: async (input: { rolloutId: string }) => void ended.push(input.rolloutId) },
    },
  };
  const suggester = createPathSuggester({
    gateway: gateway as unknown as Gateway,
    telemetry: {} as TelemetryClient,
    learner: {} as FitLearner,
    marker: {
      current: () => (regimeId === '' ? null : { regimeId }),
      isSuspended: () => isSuspended,
      livingId: (id: string) => taken.get(id) ?? id,
    } as unknown as RegimeMarker,
    windowMs: 60_000,
    leastRequestCount: 1,
    log: () => undefined,
  });
  return {
    ended,
    withdrawn,
    async round(now: { regimeId: string; isSuspended?: boolean; takenOver?: readonly [string, string] }) {
      regimeId = now.regimeId;
      isSuspended = now.isSuspended ?? false;
      if (now.takenOver !== undefined) taken.set(...now.takenOver);
      await suggester.round(1000);
      return ended.length;
    },
  };
}

test('a canary is ended when another regime is confirmed, not while one is only suspected', async () => {
  const { ended, round } = beside('roll_1');
  expect(await round({ regimeId: '' })).toBe(0);
  expect(await round({ regimeId: 'chats' })).toBe(0);
  expect(await round({ regimeId: 'chats', isSuspended: true })).toBe(0);
  expect(await round({ regimeId: 'flood' })).toBe(1);
  expect(ended).toEqual(['roll_1']);
});

test('a regime that another one took over is no change', async () => {
  const { round } = beside('roll_2');
  expect(await round({ regimeId: 'a' })).toBe(0);
  expect(await round({ regimeId: 'b', takenOver: ['a', 'b'] })).toBe(0);
});

test('open proposals of another regime are withdrawn when one is confirmed, and what scripts made is left alone', async () => {
  const of = (proposalId: string, regimeId: string, state = 'open') => ({
    proposalId,
    state,
    evidence: { regimeId },
  });
  const { withdrawn, round } = beside('roll_3', [
    of('of chats', 'chats'),
    of('of a script', ''),
    of('of a regime merged into the flood', 'deluge'),
    of('approved', 'chats', 'approved'),
    of('of the flood', 'flood'),
  ]);
  await round({ regimeId: '' });
  expect(withdrawn).toEqual([]);
  await round({ regimeId: 'flood', takenOver: ['deluge', 'flood'] });
  expect(withdrawn).toEqual(['of chats']);
  await round({ regimeId: 'flood' });
  expect(withdrawn).toEqual(['of chats']);
});
