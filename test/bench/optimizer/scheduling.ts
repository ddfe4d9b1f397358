/**
 * `npm run bench -- optimizer scheduling`: the gates of scheduling on a virtual clock, seeds 6 to 10, the worst of them
 * against the goal. Measured once for real it is `npm run bench -- serve batch-beside`.
 */
import {
  besideFigures,
  loadedFigures,
  tenantGap,
} from '../../../packages/scheduler/scheduling-gates.fixture.ts';
import type { Figure } from '../figure.ts';

const seeds = [6, 7, 8, 9, 10];

export async function benchScheduling(): Promise<readonly Figure[]> {
  const loaded = seeds.map((seed) => loadedFigures(seed));
  const beside = seeds.map((seed) => besideFigures(seed));
  const loads = loaded.map(({ load }) => load.toFixed(2)).join(', ');
  const most = (name: string, values: readonly number[], goal: number): Figure => ({
    figure: name,
    goal: `<= ${goal}`,
    measured: Math.max(...values).toFixed(2),
    interval: values.map((value) => value.toFixed(2)).join(', '),
    isMet: Math.max(...values) <= goal,
  });
  const throughput = beside.map(({ throughputRatio }) => throughputRatio);
  return [
    { figure: 'load', goal: '', measured: 'about 0.8', interval: loads, isMet: null },
    most(
      'ITL p99 to its objective',
      loaded.map(({ itlShare }) => itlShare),
      1.05,
    ),
    most(
      'longest wait for a first token to its tier’s median',
      loaded.map(({ longestWait }) => longestWait),
      10,
    ),
    most('gap of two backlogged tenants, in largest requests', seeds.map(tenantGap), 2),
    most(
      'batch file at half load: interactive ITL p99, with / without',
      beside.map(({ itlRatio }) => itlRatio),
      1.2,
    ),
    {
      figure: 'batch file at half load: tokens in all, with / without',
      goal: '>= 1.3',
      measured: Math.min(...throughput).toFixed(2),
      interval: throughput.map((value) => value.toFixed(2)).join(', '),
      isMet: Math.min(...throughput) >= 1.3,
    },
  ];
}
