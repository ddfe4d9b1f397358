/**
 * `npm run bench -- optimizer cost`: what charges and prices are worth. Conservation and order over random batches, and the
 * prices beside what leaving a request out spares; seeds 6 to 10.
 */
import { costTruth, workloads } from '../../../packages/optimizer/cost-truth.fixture.ts';
import { seededRandom } from '../../../packages/optimizer/seeded-random.ts';
import { testFit } from '../../../packages/optimizer/test-world.ts';
import { chargeStep, type TimedEntry } from '../../../packages/scheduler/step-time.ts';
import type { Figure } from '../figure.ts';

const seeds = [6, 7, 8, 9, 10];
const BATCH_COUNT = 2000;

export async function benchCost(): Promise<readonly Figure[]> {
  let worstSum = 0;
  let worstOrder = 0;
  for (const seed of seeds) {
    const random = seededRandom(seed);
    for (let round = 0; round < BATCH_COUNT; round += 1) {
      const entries = randomBatch(random);
      const deviceMs = 1000 * random.uniform();
      const shares = chargeStep(entries, deviceMs, testFit);
      const backwards = chargeStep([...entries].reverse(), deviceMs, testFit).reverse();
      const sum = shares.reduce((total, share) => total + share, 0);
      worstSum = Math.max(worstSum, Math.abs(sum - deviceMs) / deviceMs);
      shares.forEach((share, index) => {
        worstOrder = Math.max(worstOrder, Math.abs(share - (backwards[index] ?? Number.NaN)) / deviceMs);
      });
    }
  }
  const batches = `${seeds.length * BATCH_COUNT} random batches`;
  const figures: Figure[] = [
    limited('charges of a step against its time', worstSum, batches),
    limited('the same charges in another order', worstOrder, batches),
  ];
  for (const [name, workload] of Object.entries(workloads)) {
    const { load, trueMs, attributedMs, marginalMs } = costTruth(workload, seeds);
    const interval = `75 requests left out, at ${load.toFixed(2)} load`;
    const against = (price: string, ms: number, isGate: boolean): Figure => ({
      figure: `${name}: ${price} against the true marginal cost`,
      goal: isGate ? 'within 15 %' : '',
      measured: `${(100 * (ms / trueMs - 1)).toFixed(1)} %`,
      interval,
      isMet: isGate ? Math.abs(ms / trueMs - 1) <= 0.15 : null,
    });
    figures.push(
      against('marginal price', marginalMs, true),
      // What adds up to the whole is above it wherever the weight read is shared; the figure says how far.
      against('attributed price', attributedMs, name === 'long prompts'),
    );
  }
  return figures;
}

const limited = (name: string, worst: number, interval: string): Figure => ({
  figure: name,
  goal: '<= 1e-9',
  measured: worst.toExponential(1),
  interval,
  isMet: worst <= 1e-9,
});

function randomBatch(random: ReturnType<typeof seededRandom>): TimedEntry[] {
  return Array.from({ length: 1 + random.below(40) }, () => {
    const isDecode = random.uniform() < 0.6;
    const tokenIds = new Array<number>(isDecode ? 1 : 1 + random.below(200)).fill(1);
    return { kind: isDecode ? 'decode' : 'prefill', contextLength: random.below(4000), tokenIds };
  });
}
