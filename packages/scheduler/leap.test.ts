/** A world played twice, step by step and by leaps: everything that can be seen of it is the same. */
import { describe, expect, test } from 'vitest';
import { type BlockHashing, FIRST_OWN_TOKEN_ID, sha256Hashing, virtualHashing } from './block-hashing.ts';
import { seededRandom } from './paper-device.ts';
import { Scheduler, SchedulerError } from './scheduler.ts';
import type { EndedSequence, SequenceSpec, ServiceTier } from './sequence.ts';
import { predictMs, type StepFeatures, type StepTimeFit } from './step-time.ts';

const fit: StepTimeFit = {
  fitId: 'fit-1',
  deviceKind: 'cpu',
  modelHash: 'm',
  kernelsId: 'k',
  fittedAt: 0,
  sampleCount: 1,
  kneeTokens: 4,
  betaMs: {
    perStep: 2,
    perToken: 0.3,
    perTokenAboveKnee: 0.5,
    perDecodeSequence: 0.1,
    perPrefillSequence: 0.2,
    perDecodeContextToken: 0.01,
    perPrefillAttention: 0.002,
  },
  heldOutMape: null,
  heldOutCount: 0,
  logBand90: null,
};

const TOKEN = 3;
const BETWEEN_MS = 0.25;

interface Seen {
  readonly tokenTimes: Map<string, number[]>;
  readonly ended: (EndedSequence & { readonly at: number })[];
  readonly hashes: string[];
  readonly features: StepFeatures[];
  deviceMs: number;
  chargedMs: number;
  turnCount: number;
  endedAt: number;
}

/** @param mostSteps of a leap; 0 takes every step by itself */
function play(seed: number, mostSteps: number, hashing: BlockHashing = virtualHashing): Seen {
  const random = seededRandom(seed);
  const below = (bound: number): number => Math.floor(random() * bound);
  const pick = <T>(choices: readonly [T, ...T[]]): T => choices[below(choices.length)] ?? choices[0];
  const noise = pick([0, 0.1]);
  const noiseDraws = seededRandom(seed + 1000);
  const maxModelLenTokens = 30 + below(60);
  const blockSize = 1 + below(5);
  const maxRunningCount = 1 + below(8);
  const scheduler = new Scheduler({
    blockSize,
    blockCount: Math.ceil(((0.8 + 3 * random()) * maxModelLenTokens) / blockSize),
    maxModelLenTokens,
    limits: { maxRunningCount, tokenBudget: maxRunningCount + below(20) },
    numericsId: 'A',
    hashing,
  });
  scheduler.setFit(pick([fit, fit, null]));
  let at = 0;
  const arrivals = Array.from({ length: 60 }, (_, index): { at: number; spec: SequenceSpec } => {
    at += -Math.log(1 - random()) * pick([5, 60, 200]);
    const family = below(4);
    return {
      at,
      spec: {
        sequenceId: `s${index}`,
        promptTokenIds: Array.from({ length: 1 + below(40) }, (_, place) =>
          place < 20 ? (family * 7 + place) % 50 : family < 2 ? below(50) : FIRST_OWN_TOKEN_ID + index,
        ),
        generatedTokenIds: [],
        sampling: {
          temperature: 0,
          topP: 1,
          topK: 0,
          seed: 1,
          ...(below(20) === 0 ? { frequencyPenalty: 0.5 } : {}),
        },
        maxTokens: 1 + below(40),
        stopTokenIds: below(20) === 0 ? [TOKEN] : [9],
        tenant: pick(['t', 'u', 'v']),
        program: pick(['', '', 'p', 'q']),
        serviceTier: pick<ServiceTier>(['default', 'default', 'priority', 'flex']),
        objectives: pick([
          { ttftMs: 0, itlMs: 0 },
          { ttftMs: 1000, itlMs: 20 },
        ]),
        ageLimits: below(20) === 0 ? { queueMs: null, totalMs: 90_000 } : null,
        cacheSalt: '',
      },
    };
  });
  const deviceMsOf = (features: StepFeatures): number =>
    predictMs(fit, features) * (noise > 0 ? Math.exp(noise * (noiseDraws() - 0.5)) : 1);
  const seen: Seen = {
    tokenTimes: new Map(),
    ended: [],
    hashes: [],
    features: [],
    deviceMs: 0,
    chargedMs: 0,
    turnCount: 0,
    endedAt: 0,
  };
  const noteToken = (sequenceId: string, time: number): void => {
    seen.tokenTimes.set(sequenceId, [...(seen.tokenTimes.get(sequenceId) ?? []), time]);
  };
  let next = 0;
  let now = 0;
  for (;;) {
    for (; next < arrivals.length && (arrivals[next]?.at ?? 0) <= now; next += 1) {
      const arrival = arrivals[next];
      if (arrival === undefined) continue;
      const refused = scheduler.submit(arrival.spec, arrival.at);
      if (refused !== null) seen.ended.push({ ...refused, at: arrival.at });
    }
    const untilMs = arrivals[next]?.at ?? Number.POSITIVE_INFINITY;
    seen.turnCount += 1;
    const leap =
      mostSteps === 0
        ? null
        : scheduler.leap({ now, untilMs, mostSteps, betweenMs: BETWEEN_MS, tokenId: TOKEN, deviceMsOf });
    if (leap !== null) {
      for (const [index, sequenceId] of leap.sequenceIds.entries()) {
        expect(leap.lastTokenAt[index]).toBe(seen.tokenTimes.get(sequenceId)?.at(-1));
        for (const time of leap.settledAt) noteToken(sequenceId, time);
      }
      const endedAt = leap.settledAt.at(-1) ?? 0;
      for (const ended of leap.ended) seen.ended.push({ ...ended, at: endedAt });
      seen.hashes.push(...leap.leftBlockHashes.map((hash) => `-${hash}`));
      seen.hashes.push(...leap.enteredBlockHashes.map((hash) => `+${hash}`));
      seen.features.push(...leap.features);
      for (const ms of leap.deviceMs) seen.deviceMs += ms;
      seen.chargedMs += leap.chargedMs;
      now = leap.nextAt;
      expect(scheduler.audit()).toEqual([]);
      continue;
    }
    const batch = scheduler.schedule(now);
    if (batch === null) {
      if (next >= arrivals.length) break;
      now = Math.max(now, untilMs);
      continue;
    }
    const deviceMs = deviceMsOf(batch.features);
    now += deviceMs;
    const sampledTokenIds = batch.entries.map(({ isSampled }) => (isSampled ? TOKEN : -1));
    const settled = scheduler.settle({ stepId: batch.stepId, sampledTokenIds, deviceMs }, now);
    for (const { sequenceId } of settled.events) noteToken(sequenceId, now);
    for (const ended of settled.ended) seen.ended.push({ ...ended, at: now });
    seen.hashes.push(...settled.leftBlockHashes.map((hash) => `-${hash}`));
    seen.hashes.push(...settled.enteredBlockHashes.map((hash) => `+${hash}`));
    seen.features.push(batch.features);
    seen.deviceMs += deviceMs;
    for (const ms of Object.values(settled.charge)) seen.chargedMs += ms;
    now += BETWEEN_MS;
  }
  expect(scheduler.audit()).toEqual([]);
  seen.hashes.push(...scheduler.cachedBlockHashes().sort());
  seen.endedAt = now;
  return seen;
}

const isNear = (a: number, b: number): boolean => Math.abs(a - b) <= 1e-9 * Math.max(1e-6, Math.abs(b));

describe('a leap', () => {
  test('books what its steps would have, over a hundred worlds, noisy ones among them', () => {
    let leapTurns = 0;
    let stepTurns = 0;
    for (let seed = 1; seed <= 100; seed += 1) {
      const stepped = play(seed, 0);
      const leaped = play(seed, seed % 3 === 0 ? 7 : Number.POSITIVE_INFINITY);
      leapTurns += leaped.turnCount;
      stepTurns += stepped.turnCount;
      expect(leaped.endedAt).toBe(stepped.endedAt);
      expect(leaped.deviceMs).toBeCloseTo(stepped.deviceMs, 6);
      expect(leaped.tokenTimes).toEqual(stepped.tokenTimes);
      expect(leaped.features).toEqual(stepped.features);
      expect(sorted(leaped.hashes)).toEqual(sorted(stepped.hashes));
      expect(leaped.ended.length).toBe(60);
      for (const [index, { account, ...ended }] of leaped.ended.entries()) {
        const { account: steppedAccount, ...steppedEnd } = stepped.ended[index] as EndedSequence;
        expect(ended).toEqual(steppedEnd);
        for (const key of ['prefillDeviceMs', 'decodeDeviceMs', 'recomputeDeviceMs'] as const) {
          expect(isNear(account[key], steppedAccount[key])).toBe(true);
        }
        expect([account.fitId, account.fitCount]).toEqual([steppedAccount.fitId, steppedAccount.fitCount]);
      }
      expect(isNear(leaped.chargedMs, leaped.deviceMs)).toBe(true);
    }
    // Small worlds, always something going on; and yet most steps are part of a leap.
    expect(leapTurns).toBeLessThan(0.6 * stepTurns);
  });

  test('cheap names of blocks change nothing, and blocks that nobody can ask for need none', () => {
    for (let seed = 1; seed <= 20; seed += 1) {
      const cheap = play(seed, Number.POSITIVE_INFINITY);
      const dear = play(seed, Number.POSITIVE_INFINITY, sha256Hashing);
      expect(cheap.ended).toEqual(dear.ended);
      expect(cheap.tokenTimes).toEqual(dear.tokenTimes);
      expect(cheap.hashes.length).toBeLessThan(dear.hashes.length);
      expect(cheap.ended.some(({ cachedTokenCount }) => cachedTokenCount > 0)).toBe(true);
    }
  });

  test('is refused while a step is in flight', () => {
    const scheduler = new Scheduler({
      ...{ blockCount: 8, blockSize: 4, maxModelLenTokens: 32, numericsId: 'A' },
      limits: { tokenBudget: 16, maxRunningCount: 4 },
    });
    const question = {
      ...{ now: 0, untilMs: 100, mostSteps: 10, betweenMs: 0, tokenId: TOKEN },
      deviceMsOf: () => 1,
    };
    expect(scheduler.leap(question)).toBeNull();
    scheduler.submit(
      {
        sequenceId: 'a',
        promptTokenIds: [1, 2],
        generatedTokenIds: [],
        sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
        maxTokens: 5,
        stopTokenIds: [],
        tenant: '',
        program: '',
        serviceTier: 'default',
        objectives: { ttftMs: 0, itlMs: 0 },
        ageLimits: null,
        cacheSalt: '',
      },
      0,
    );
    expect(scheduler.leap(question)).toBeNull();
    const stepId = scheduler.schedule(0)?.stepId ?? 0;
    expect(() => scheduler.leap(question)).toThrow(SchedulerError);
    scheduler.settle({ stepId, sampledTokenIds: [TOKEN], deviceMs: 1 }, 1);
    const leap = scheduler.leap({ ...question, now: 1 });
    expect(leap?.settledAt).toEqual([2, 3, 4, 5]);
    expect(leap?.firstStepId).toBe(stepId + 1);
    expect(leap?.ended.map(({ reason, completionTokenCount }) => [reason, completionTokenCount])).toEqual([
      ['length', 5],
    ]);
  });
});

/** Within a step, what left is told before what entered; over several the two lists are apart. */
const sorted = (hashes: readonly string[]): string[] => [...hashes].sort();
