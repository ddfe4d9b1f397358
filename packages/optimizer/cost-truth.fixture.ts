/**
 * What a request truly costs: the same traffic again without it, and the device time that is spared. For the test and the
 * bench of cost; requests are left out one at a time. Two workloads that bound what there is: in `long prompts` the work is each request's own, in `chats`
 * half of it is the weight read that they share.
 */
import { exponential, runVirtually, type VirtualArrival } from '../scheduler/virtual-clock.fixture.ts';
import { marginalShares } from './cost-marginal.ts';
import { seededRandom } from './seeded-random.ts';
import { testFit } from './test-world.ts';

interface Workload {
  readonly promptTokens: readonly [least: number, most: number];
  readonly completionTokens: readonly [least: number, most: number];
  /** Between arrivals, on the average. */
  readonly gapMs: number;
}

export const workloads: Readonly<Record<'long prompts' | 'chats', Workload>> = {
  'long prompts': { promptTokens: [500, 1500], completionTokens: [5, 20], gapMs: 1500 },
  chats: { promptTokens: [50, 600], completionTokens: [10, 60], gapMs: 650 },
};

export interface Truth {
  /** Share of the time that the device is busy. */
  readonly load: number;
  readonly trueMs: number;
  readonly attributedMs: number;
  /** Attributed ms times the marginal share of their kind. */
  readonly marginalMs: number;
}

/** Over all seeds together: a single request's true cost scatters by how steps happened to fall. */
export function costTruth(workload: Workload, seeds: readonly number[]): Truth {
  const each = seeds.map((seed) => truthOf(workload, seed));
  const sum = (key: keyof Truth): number => each.reduce((total, truth) => total + truth[key], 0);
  return {
    load: sum('load') / seeds.length,
    trueMs: sum('trueMs'),
    attributedMs: sum('attributedMs'),
    marginalMs: sum('marginalMs'),
  };
}

function truthOf({ promptTokens, completionTokens, gapMs }: Workload, seed: number): Truth {
  const random = seededRandom(seed);
  const between = ([least, most]: readonly [number, number]): number => least + random.below(most - least);
  let at = 0;
  const arrivals = Array.from({ length: 120 }, (): VirtualArrival => {
    at += exponential(random.uniform, gapMs);
    return { at, promptTokens: between(promptTokens), completionTokens: between(completionTokens) };
  });
  const options = {
    blockCount: 2048,
    blockSize: 16,
    maxModelLenTokens: 2048,
    limits: { tokenBudget: 256, maxRunningCount: 32 },
    numericsId: 'A',
  };
  const run = (some: readonly VirtualArrival[]) =>
    runVirtually({ arrivals: some, options, device: testFit, fit: testFit, seed });
  const whole = run(arrivals);
  const shares = marginalShares(whole.steps.map((step) => ({ ...step, fit: testFit })));
  const truth = { trueMs: 0, attributedMs: 0, marginalMs: 0 };
  for (let left = 4; left < arrivals.length; left += 8) {
    const account = whole.requests[left]?.ended?.account;
    if (account === undefined) throw new Error(`Request ${left} has not ended.`);
    const prefillMs = account.prefillDeviceMs + account.recomputeDeviceMs;
    const decodeMs = account.decodeDeviceMs + account.speculationWasteDeviceMs;
    truth.trueMs += whole.deviceMs - run(arrivals.filter((_, index) => index !== left)).deviceMs;
    truth.attributedMs += prefillMs + decodeMs;
    truth.marginalMs += (shares.prefill ?? 0) * prefillMs + (shares.decode ?? 0) * decodeMs;
  }
  return { load: whole.deviceMs / whole.spanMs, ...truth };
}
