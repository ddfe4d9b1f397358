import { describe, expect, test } from 'vitest';
import { type Behaviour, chooseTier, type TierEvidence } from './service-tier.ts';

const nothing: TierEvidence = {
  asked: '',
  isBatchLine: false,
  gatewayObjective: '',
  isStreamed: false,
  patienceMs: null,
  session: null,
  tenant: null,
};
const behaviour = (change: Partial<Behaviour>): Behaviour => ({
  requestCount: 5,
  streamedCount: 0,
  medianPauseMs: 500,
  meanOpenCount: 1,
  ...change,
});
const sleepy = behaviour({ medianPauseMs: 120_000 });
const bulk = behaviour({ requestCount: 40, meanOpenCount: 12, medianPauseMs: null });

describe('a tier', () => {
  test.each<[string, Partial<TierEvidence>, string, RegExp]>([
    [
      'asked for wins over all else',
      { asked: 'priority', isBatchLine: true, session: sleepy },
      'priority',
      /asked/,
    ],
    ['default that is asked for stays', { asked: 'default', isBatchLine: true }, 'default', /asked/],
    ['auto leaves it to us', { asked: 'auto', isBatchLine: true }, 'flex', /batch file/],
    ['of a batch line is flex', { isBatchLine: true }, 'flex', /batch file/],
    [
      "a gateway's name for background work",
      { gatewayObjective: 'nightly_batch', isStreamed: true },
      'flex',
      /gateway/,
    ],
    ["a gateway's name for urgent work", { gatewayObjective: 'critical-chat' }, 'priority', /gateway/],
    ["a gateway's name that says nothing", { gatewayObjective: 'team-blue' }, 'default', /nothing shows/],
    ['of a client in a hurry', { patienceMs: 4000 }, 'priority', /waits 4 s at most/],
    ['of a patient client', { patienceMs: 900_000 }, 'flex', /waits 900 s/],
    [
      'of a patient client who reads along',
      { patienceMs: 900_000, isStreamed: true },
      'default',
      /reads along/,
    ],
    ["of OpenAI's client as it comes", { patienceMs: 600_000 }, 'default', /nothing shows/],
    ['of a session that sleeps between turns', { session: sleepy }, 'flex', /last 5 turns.*pauses for 120 s/],
    [
      'of a session that sleeps but reads',
      { session: { ...sleepy, streamedCount: 1 } },
      'default',
      /goes on/,
    ],
    ['of a sleepy session that streams now', { session: sleepy, isStreamed: true }, 'default', /reads along/],
    ['of an agent between quick tools', { session: behaviour({}), tenant: bulk }, 'default', /goes on soon/],
    [
      'of a session too young to tell',
      { session: { ...sleepy, requestCount: 2 } },
      'default',
      /nothing shows/,
    ],
    ['of a tenant in bulk', { tenant: bulk }, 'flex', /bulk: .*last 40 requests.*12 at once/],
    [
      'of a tenant that streams at times',
      { tenant: { ...bulk, streamedCount: 2 } },
      'default',
      /nothing shows/,
    ],
    ['of a tenant one by one', { tenant: { ...bulk, meanOpenCount: 1 } }, 'default', /nothing shows/],
    ['without any evidence', {}, 'default', /nothing shows/],
  ])('%s', (_name, evidence, tier, reason) => {
    const choice = chooseTier({ ...nothing, ...evidence });
    expect(choice.serviceTier).toBe(tier);
    expect(choice.reason).toMatch(reason);
  });
});
