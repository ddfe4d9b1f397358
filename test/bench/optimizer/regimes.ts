/**
 * `npm run bench -- optimizer regimes`: the regime detector on simulated days, seeds 6 to 10. Nothing here is timed. What
 * is played is in packages/optimizer/simulated-traffic.fixture.ts.
 */
import {
  delayOfShift,
  falseAlarmsOfDay,
  recallWithout,
  shifts,
} from '../../../packages/optimizer/regime-gates.fixture.ts';
import { mixed, workloads } from '../../../packages/optimizer/simulated-traffic.fixture.ts';
import type { Figure } from '../figure.ts';

const SEEDS = [6, 7, 8, 9, 10];
const RUNS_A_SEED = 4;

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;

export async function benchRegimes(): Promise<readonly Figure[]> {
  const alarms = SEEDS.map((seed) => falseAlarmsOfDay(mixed, seed));
  const perDay = alarms.reduce((sum, count) => sum + count, 0) / alarms.length;
  const figures: Figure[] = [
    {
      figure: 'false alarms in a simulated day',
      goal: '<= 1',
      measured: perDay.toFixed(1),
      interval: `days of ${alarms.join(', ')}`,
      isMet: perDay <= 1,
    },
  ];
  for (const shift of shifts) {
    const runs = SEEDS.flatMap((seed) => Array.from({ length: RUNS_A_SEED }, (_, run) => 100 * seed + run));
    const delays = runs.map((seed) => delayOfShift(shift, seed));
    const inTime = delays.filter((delay) => delay !== null).sort((a, b) => a - b);
    const share = inTime.length / delays.length;
    figures.push({
      figure: `${shift}: confirmed within 15 windows`,
      goal: '>= 95 %',
      measured: percent(share),
      interval: `median ${inTime[Math.floor(inTime.length / 2)] ?? '-'} windows, ${delays.length} runs`,
      isMet: share >= 0.95,
    });
  }
  const counts = SEEDS.flatMap((seed) => workloads.map((_, leftOut) => recallWithout(leftOut, seed)));
  const sum = (name: keyof (typeof counts)[number]): number =>
    counts.reduce((total, count) => total + count[name], 0);
  const recalled = sum('recalled') / sum('recurrences');
  const rejected = sum('rejected') / sum('unseen');
  return [
    ...figures,
    {
      figure: 'regimes that come again are recalled',
      goal: '>= 95 %',
      measured: percent(recalled),
      interval: `${sum('recurrences')} visits`,
      isMet: recalled >= 0.95,
    },
    {
      figure: 'unseen regimes are told apart',
      goal: '>= 90 %',
      measured: percent(rejected),
      interval: `${sum('unseen')} visits`,
      isMet: rejected >= 0.9,
    },
  ];
}
