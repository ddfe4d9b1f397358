/** The capacity ledger and its three prices: nothing is charged twice, nothing is lost, and each price means what it says. */
import { chargeStep, featuresOf, predictMs, type TimedEntry } from '@variator/scheduler/step-time';
import { describe, expect, test } from 'vitest';
import {
  availableMs,
  type ChargedGroup,
  capacityOf,
  kvResidencyMs,
  kvResidencyPrice,
  priceGroup,
  type TierDemand,
} from './cost-ledger.ts';
import { chargedOfStep, marginalOfStep, marginalShares, savedMs } from './cost-marginal.ts';
import { seededRandom } from './seeded-random.ts';
import { testFit } from './test-world.ts';

const group = (key: string, changes: Partial<ChargedGroup>): ChargedGroup => ({
  key,
  requestCount: 1,
  goodRequestCount: 1,
  promptTokenCount: 100,
  cachedTokenCount: 0,
  completionTokenCount: 100,
  prefillDeviceMs: 0,
  decodeDeviceMs: 0,
  speculationWasteDeviceMs: 0,
  recomputeDeviceMs: 0,
  priorityDeviceMs: 0,
  defaultDeviceMs: 0,
  flexDeviceMs: 0,
  deviceMsByWorker: {},
  ...changes,
});

function randomEntries(seed: number): TimedEntry[] {
  const random = seededRandom(seed);
  return Array.from({ length: 1 + random.below(30) }, () => {
    const isDecode = random.uniform() < 0.6;
    return {
      kind: isDecode ? ('decode' as const) : ('prefill' as const),
      contextLength: random.below(3000),
      tokenIds: new Array<number>(isDecode ? 1 : 60).fill(1),
    };
  });
}

describe('the marginal cost of a step', () => {
  test('is what the model says of the step without each of its sequences in turn', () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const entries = randomEntries(seed);
      const features = featuresOf(entries);
      const whole = predictMs(testFit, features);
      const spared = { prefill: 0, decode: 0, recompute: 0 };
      for (const entry of entries) {
        const others = entries.filter((other) => other !== entry);
        spared[entry.kind] += whole - (others.length === 0 ? 0 : predictMs(testFit, featuresOf(others)));
      }
      const { prefillMs, decodeMs } = marginalOfStep(testFit, features);
      expect(prefillMs).toBeCloseTo(spared.prefill, 8);
      expect(decodeMs).toBeCloseTo(spared.decode, 8);
    }
  });

  test('stands beside the charge by kind, which is chargeStep summed', () => {
    for (let seed = 1; seed <= 200; seed += 1) {
      const entries = randomEntries(seed);
      const features = featuresOf(entries);
      const shares = chargeStep(entries, predictMs(testFit, features), testFit);
      const decodeMs = shares.reduce((sum, ms, at) => sum + (entries[at]?.kind === 'decode' ? ms : 0), 0);
      const charged = chargedOfStep(testFit, features);
      expect(charged.decodeMs).toBeCloseTo(decodeMs, 8);
      expect(charged.prefillMs + charged.decodeMs).toBeCloseTo(predictMs(testFit, features), 8);
    }
  });

  test('is all of its charge for who runs alone, and its own work where others read the weights anyway', () => {
    const decoding = (count: number) => {
      const entries = Array.from({ length: count }, () => ({
        kind: 'decode' as const,
        contextLength: 200,
        tokenIds: [1],
      }));
      return { features: featuresOf(entries), deviceMs: 9, fit: testFit };
    };
    const shares = [1, 2, 4].map((count) => marginalShares([decoding(count)]).decode ?? -1);
    expect(shares[0]).toBeCloseTo(1, 12);
    // Of two: a token, a decoding sequence and 200 tokens of context each, 0.52 ms, of 6.04 ms in all.
    expect(shares[1]).toBeCloseTo(1.04 / 6.04, 9);
    expect(shares[2]).toBeCloseTo(2.08 / 7.08, 9);
    expect(marginalShares([]).prefill).toBeNull();
  });

  test('of twice the context at equal uncached tokens is higher by the attention terms, for prefill and decode', () => {
    for (const kind of ['prefill', 'decode'] as const) {
      const costMs = (contextLength: number): number => {
        const entry = {
          kind,
          contextLength,
          tokenIds: new Array<number>(kind === 'decode' ? 1 : 64).fill(1),
        };
        return predictMs(testFit, featuresOf([entry]));
      };
      const { perDecodeContextToken, perPrefillAttention } = testFit.betaMs;
      const more = kind === 'decode' ? 1000 * perDecodeContextToken : 64 * 1000 * perPrefillAttention;
      expect(costMs(2000) - costMs(1000)).toBeCloseTo(more, 9);
    }
  });

  test('spared by a cached prefix is the cold prefill less the warm one', () => {
    const prefillMs = (contextLength: number, count: number): number =>
      predictMs(
        testFit,
        featuresOf([{ kind: 'prefill', contextLength, tokenIds: new Array<number>(count).fill(1) }]),
      );
    const saved = savedMs(testFit, { tokenCount: 900, squaredTokenCount: 900 ** 2 });
    expect(saved).toBeCloseTo(prefillMs(0, 1000) - prefillMs(900, 100), 8);
  });
});

describe('the capacity ledger', () => {
  const demand: TierDemand[] = [
    { serviceTier: 'priority', deviceMs: 1000, peakDeviceMs: 300 },
    { serviceTier: 'default', deviceMs: 3000, peakDeviceMs: 100 },
    { serviceTier: 'flex', deviceMs: 2000, peakDeviceMs: 900 },
  ];

  test('adds up to the available time, whatever was measured', () => {
    const random = seededRandom(3);
    for (let round = 0; round < 500; round += 1) {
      const capacity = capacityOf({
        availableMs: 1e6 * random.uniform(),
        servedDeviceMs: 1e6 * random.uniform(),
        otherDeviceMs: 1e4 * random.uniform(),
        demand: round % 2 === 0 ? demand : [],
      });
      const { servedDeviceMs, otherDeviceMs, headroomMs, overheadMs } = capacity;
      const sum = servedDeviceMs + otherDeviceMs + headroomMs + overheadMs;
      expect(Math.abs(sum - capacity.availableMs)).toBeLessThanOrEqual(1e-9 * capacity.availableMs);
      expect(Math.min(headroomMs, overheadMs)).toBeGreaterThanOrEqual(0);
    }
  });

  test('keeps headroom up to the target load for interactive tiers alone', () => {
    const idle = { availableMs: 10_000, servedDeviceMs: 6000, otherDeviceMs: 0 };
    expect(capacityOf({ ...idle, demand })).toMatchObject({
      headroomMs: expect.closeTo(3000),
      overheadMs: expect.closeTo(1000),
    });
    const flexAlone = demand.filter(({ serviceTier }) => serviceTier === 'flex');
    expect(capacityOf({ ...idle, demand: flexAlone })).toMatchObject({ headroomMs: 0, overheadMs: 4000 });
    expect(capacityOf({ ...idle, servedDeviceMs: 9500, demand })).toMatchObject({
      headroomMs: expect.closeTo(500),
      overheadMs: expect.closeTo(0),
    });
  });

  test('charges headroom by peaks among tiers and by use within one; a partition pays all of it, flex none', () => {
    const capacity = capacityOf({ availableMs: 10_000, servedDeviceMs: 6000, otherDeviceMs: 0, demand });
    const marginal = { prefill: 0.9, decode: 0.5 };
    const terms = { capacity, demand, marginal, energy: [], deviceUsdPerHour: 3.6 };
    const groups = [
      group('a', { prefillDeviceMs: 1000, decodeDeviceMs: 500, priorityDeviceMs: 1000, flexDeviceMs: 500 }),
      group('b', { decodeDeviceMs: 3000, defaultDeviceMs: 3000 }),
      group('c', { decodeDeviceMs: 1500, flexDeviceMs: 1500 }),
    ].map((each) => priceGroup(each, terms));
    expect(groups.map(({ headroomMs }) => Math.round(headroomMs))).toEqual([2250, 750, 0]);
    const paid = groups.reduce((sum, { deviceMs, headroomMs }) => sum + deviceMs + headroomMs, 0);
    expect(paid).toBeCloseTo(capacity.servedDeviceMs + capacity.headroomMs, 6);
    // 3750 ms at 3.6 USD an hour for 200 tokens.
    expect(groups[0]?.fullyLoadedUsdPerMillionTokens).toBeCloseTo((3.75e-3 / 200) * 1e6);
    expect(groups[0]?.marginalDeviceMs).toBeCloseTo(900 + 250);
    for (const priced of groups) {
      expect(priced.marginalUsdPerMillionTokens).toBeLessThanOrEqual(
        priced.attributedUsdPerMillionTokens ?? 0,
      );
    }
  });

  test('prices nothing that was not measured', () => {
    const capacity = capacityOf({ availableMs: 0, servedDeviceMs: 0, otherDeviceMs: 0, demand: [] });
    const marginal = { prefill: null, decode: null };
    const terms = { capacity, demand: [], marginal, energy: [], deviceUsdPerHour: 1 };
    const none = group('', { promptTokenCount: 0, completionTokenCount: 0, goodRequestCount: 0 });
    expect(priceGroup(none, terms)).toMatchObject({
      deviceMsPerGoodRequest: null,
      attributedUsdPerMillionTokens: null,
      fullyLoadedUsd: 0,
    });
    const unknown = priceGroup(group('', { decodeDeviceMs: 5, defaultDeviceMs: 5 }), terms);
    expect(unknown.marginalDeviceMs).toBeNull();
  });

  test('shares the energy of devices that say by device ms: it adds up, and is null where none says', () => {
    const capacity = capacityOf({ availableMs: 0, servedDeviceMs: 0, otherDeviceMs: 0, demand: [] });
    const energy = [
      { workerId: 'gpu-0', energyJoules: 900, deviceMs: 300 },
      { workerId: 'gpu-1', energyJoules: 100, deviceMs: 100 },
    ];
    const terms = {
      capacity,
      demand: [],
      marginal: { prefill: null, decode: null },
      energy,
      deviceUsdPerHour: 1,
    };
    const byWorker = [
      { 'gpu-0': 100, 'gpu-1': 80 },
      { 'gpu-0': 150, 'cpu-0': 5000 },
      { 'gpu-1': 20 },
      { 'gpu-0': 50 },
    ];
    const joules = byWorker.map(
      (deviceMsByWorker) => priceGroup(group('', { deviceMsByWorker }), terms).energyJoules,
    );
    expect(joules).toEqual([300 + 80, 450, 20, 150]);
    expect(joules.reduce((sum: number, each) => sum + (each ?? 0), 0)).toBe(1000);
    const silent = group('', { deviceMsByWorker: { 'cpu-0': 5 } });
    expect(priceGroup(silent, terms).energyJoules).toBeNull();
  });

  test('counts a worker that its steps and the fleet know once, and only within the span', () => {
    const presences = [
      { workerId: 'a', fromMs: 0, toMs: 50 },
      { workerId: 'a', fromMs: 40, toMs: 200 },
      { workerId: 'b', fromMs: 90, toMs: 95 },
      { workerId: 'b', fromMs: 500, toMs: 600 },
    ];
    expect(availableMs(presences, { fromMs: 10, toMs: 100 })).toBe(90 + 5);
  });

  test('prices held KV by what its lack made others compute again, and not at all while there is room', () => {
    const window = { recomputeDeviceMs: 500, evictedBlockCount: 7, idleBlockSeconds: 1000 };
    expect(kvResidencyPrice(window)).toBe(0.5);
    expect(kvResidencyPrice({ ...window, evictedBlockCount: 0 })).toBe(0);
    expect(kvResidencyPrice({ ...window, idleBlockSeconds: 0 })).toBe(0);
    // 64 tokens for ten seconds are four blocks of 16.
    expect(kvResidencyMs(640, 16, kvResidencyPrice(window))).toBe(20);
  });
});
