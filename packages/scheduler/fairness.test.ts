/** Nobody starves, whatever arrives; and tenants of a tier get equal shares of the device while each has work waiting. */
import { describe, expect, test } from 'vitest';
import { seededRandom } from './paper-device.ts';
import { Scheduler, type SchedulerOptions } from './scheduler.ts';
import type { EndedSequence, SequenceSpec, ServiceTier } from './sequence.ts';

const options: SchedulerOptions = {
  blockCount: 40,
  blockSize: 4,
  maxModelLenTokens: 120,
  limits: { tokenBudget: 32, maxRunningCount: 4 },
  numericsId: 'A',
};
/** Slow, so that few steps outlast a tier's handicap. */
const STEP_MS = 500;
const tiers: readonly ServiceTier[] = ['priority', 'default', 'flex'];

function specOf(
  sequenceId: string,
  serviceTier: ServiceTier,
  tenant: string,
  sizes: { readonly prompt: number; readonly completion: number },
): SequenceSpec {
  // Every prompt has a beginning of its own: nothing comes from the cache.
  const start = Number(sequenceId.replace(/\D/g, '')) * 1000;
  return {
    sequenceId,
    promptTokenIds: Array.from({ length: sizes.prompt }, (_, at) => start + at),
    generatedTokenIds: [],
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
    maxTokens: sizes.completion,
    stopTokenIds: [],
    tenant,
    program: '',
    serviceTier,
    objectives: { ttftMs: 0, itlMs: 0 },
    ageLimits: null,
    cacheSalt: '',
  };
}

/** A scheduler whose steps take STEP_MS and yield a token for everybody. */
function setUp(change: Partial<SchedulerOptions> = {}) {
  const scheduler = new Scheduler({ ...options, ...change });
  const ended = new Map<string, EndedSequence>();
  let now = 0;
  let count = 0;
  return {
    scheduler,
    ended,
    now: () => now,
    submit(serviceTier: ServiceTier, tenant: string, sizes = { prompt: 8, completion: 6 }): string {
      count += 1;
      const spec = specOf(`s${count}`, serviceTier, tenant, sizes);
      expect(scheduler.submit(spec, now)).toBeNull();
      return spec.sequenceId;
    },
    /** Charged device ms of the sequences that ended in the step. */
    step(): readonly EndedSequence[] {
      const batch = scheduler.schedule(now);
      now += STEP_MS;
      if (batch === null) return [];
      const sampledTokenIds = batch.entries.map(({ isSampled }) => (isSampled ? 1 : -1));
      const settled = scheduler.settle({ stepId: batch.stepId, sampledTokenIds, deviceMs: STEP_MS }, now);
      for (const one of settled.ended) ended.set(one.sequenceId, one);
      return settled.ended;
    },
  };
}

const deviceMsOf = ({ account }: EndedSequence): number =>
  account.prefillDeviceMs +
  account.decodeDeviceMs +
  account.speculationWasteDeviceMs +
  account.recomputeDeviceMs;

describe('every waiting sequence gets to its end', () => {
  type Arrivals = (run: ReturnType<typeof setUp>, random: () => number, step: number) => void;
  const size = (random: () => number) => ({
    prompt: 1 + Math.floor(random() * 60),
    completion: 1 + Math.floor(random() * 40),
  });
  // Each brings more than the device can do, for ever.
  const floods: readonly [string, Arrivals][] = [
    ['priority without end', (run, random) => void run.submit('priority', 'flood', size(random))],
    [
      'a new tenant with every request',
      (run, random, step) => void run.submit('priority', `tenant-${step}`, size(random)),
    ],
    [
      'bursts of small ones by many tenants',
      (run, _random, step) => {
        if (step % 20 > 0) return;
        for (let one = 0; one < 15; one += 1) run.submit('default', `tenant-${one}`);
      },
    ],
    [
      'any tier, tenant and size',
      (run, random) => {
        for (let one = random(); one < 0.7; one += 0.4) {
          const tier = tiers[Math.floor(random() * tiers.length)] ?? 'default';
          run.submit(tier, `tenant-${Math.floor(random() * 5)}`, size(random));
        }
      },
    ],
    [
      'answers that outgrow the KV cache together',
      (run, random, step) => {
        if (step % 4 === 0) run.submit('default', `tenant-${step % 3}`, { prompt: 4, completion: 100 });
        else if (random() < 0.3) run.submit('priority', 'flood', { prompt: 30, completion: 60 });
      },
    ],
  ];
  const cases = floods.flatMap(([name, arrivals]) =>
    tiers.flatMap((tier) => [1, 2].map((seed) => ({ name, arrivals, tier, seed }))),
  );

  test.each(cases)('$tier beside $name (seed $seed)', ({ arrivals, tier, seed }) => {
    const random = seededRandom(seed);
    const run = setUp();
    // A backlog, so that the patient one meets a full house.
    for (let step = 0; step < 60; step += 1) {
      arrivals(run, random, step);
      run.step();
    }
    const patient = run.submit(tier, 'patient', { prompt: 80, completion: 30 });
    for (let step = 60; !run.ended.has(patient); step += 1) {
      arrivals(run, random, step);
      run.step();
      // Before it stands only what came within the handicap of its tier, 120 steps: some hundred sequences at most.
      if (step > 6000) throw new Error(`${patient} starves.`);
    }
    expect(run.ended.get(patient)?.reason).toBe('length');
    expect(run.scheduler.audit()).toEqual([]);
  });
});

describe('tiers under more than the device can do', () => {
  test('wait by their tier: priority hardly, default less than flex', () => {
    const run = setUp();
    const tierOf = new Map<string, ServiceTier>();
    for (let step = 0; step < 400; step += 1) {
      for (const [tier, every] of [
        ['priority', 8],
        ['default', 4],
        ['flex', 2],
      ] as const) {
        if (step % every === 0) tierOf.set(run.submit(tier, 't'), tier);
      }
      run.step();
    }
    const meanQueueMs = (tier: ServiceTier): number => {
      const some = [...run.ended.values()].filter(({ sequenceId }) => tierOf.get(sequenceId) === tier);
      return some.reduce((sum, { queueMs }) => sum + queueMs, 0) / some.length;
    };
    expect(meanQueueMs('priority')).toBeLessThan(3 * STEP_MS);
    expect(meanQueueMs('default')).toBeLessThan(0.5 * meanQueueMs('flex'));
    expect(run.ended.size).toBeLessThan(0.9 * tierOf.size);
  });
});

describe('tenants of one tier', () => {
  test('share the device equally, though one asks for fifty times as much and came first', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 4 } });
    for (let count = 0; count < 500; count += 1) run.submit('default', 'greedy');
    for (let count = 0; count < 10; count += 1) run.submit('default', 'modest');
    const served = { greedy: 0, modest: 0 };
    let most = 0;
    while (run.ended.size < 20) {
      for (const one of run.step()) {
        const tenant = Number(one.sequenceId.slice(1)) > 500 ? 'modest' : 'greedy';
        served[tenant] += deviceMsOf(one);
        most = Math.max(most, deviceMsOf(one));
        // The running ones are not counted yet: four places, and one admission in eight goes by age.
        expect(Math.abs(served.greedy - served.modest)).toBeLessThanOrEqual(4 * most);
      }
    }
    expect(served.modest).toBeGreaterThan(0.35 * (served.greedy + served.modest));
  });

  test('share by device time, not by requests: who asks for long answers gets fewer of them', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 2 } });
    const long = new Set<string>();
    for (let count = 0; count < 300; count += 1) {
      long.add(run.submit('default', 'long', { prompt: 8, completion: 40 }));
      run.submit('default', 'short', { prompt: 8, completion: 4 });
    }
    const served = { long: 0, short: 0 };
    for (let steps = 0; steps < 600; steps += 1) {
      for (const one of run.step()) served[long.has(one.sequenceId) ? 'long' : 'short'] += deviceMsOf(one);
    }
    expect(served.short / served.long).toBeGreaterThan(0.7);
    expect(served.short / served.long).toBeLessThan(1.4);
  });

  test('save nothing up while they are away', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 1 } });
    run.submit('default', 'away');
    while (run.ended.size < 1) run.step();
    for (let count = 0; count < 60; count += 1) run.submit('default', 'busy');
    while (run.ended.size < 30) run.step();
    for (let count = 0; count < 20; count += 1) run.submit('default', 'away');
    const after = run.ended.size;
    while (run.ended.size < after + 10) run.step();
    const backIds = [...run.ended.keys()].slice(after).filter((id) => Number(id.slice(1)) > 61);
    // Half of them, give or take one: not all ten in a row.
    expect(backIds.length).toBeGreaterThanOrEqual(4);
    expect(backIds.length).toBeLessThanOrEqual(6);
  });

  test('lose nothing by a moment without a request: who asks for the next when the last has ended gets its half', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 4 } });
    const modest = new Set<string>();
    for (let count = 0; count < 400; count += 1) run.submit('default', 'greedy');
    for (let count = 0; count < 4; count += 1) modest.add(run.submit('default', 'modest'));
    const served = { greedy: 0, modest: 0 };
    for (let steps = 0; steps < 400; steps += 1) {
      const ended = run.step();
      for (const one of ended) served[modest.has(one.sequenceId) ? 'modest' : 'greedy'] += deviceMsOf(one);
      // All of its answers are equally long: they end in one step, and for that moment it has nothing open.
      for (const one of ended) if (modest.has(one.sequenceId)) modest.add(run.submit('default', 'modest'));
    }
    expect(served.modest / (served.modest + served.greedy)).toBeGreaterThan(0.45);
  });

  test('do not cross tiers: what a tenant does in flex is not held against it elsewhere', () => {
    const run = setUp({ limits: { tokenBudget: 64, maxRunningCount: 1 } });
    for (let count = 0; count < 5; count += 1) run.submit('flex', 'batches');
    while (run.ended.size < 5) run.step();
    const first = run.submit('default', 'batches');
    const second = run.submit('default', 'other');
    while (run.ended.size < 7) run.step();
    expect([...run.ended.keys()].slice(5)).toEqual([first, second]);
  });
});
