/**
 * `npm run bench -- optimizer regimes`: the regime detector on simulated days, seeds 6 to 10. Nothing here is timed. What
 * is played is in packages/optimizer/simulated-traffic.fixture.ts.
 */
import {
  delayOfShift,
  quietDay,
  recallWithout,
  shifts,
} from '../../../packages/optimizer/regime-gates.fixture.ts';
import { mixed, type Workload, workloads } from '../../../packages/optimizer/simulated-traffic.fixture.ts';
import type { Figure } from '../figure.ts';

const SEEDS = [6, 7, 8, 9, 10];
const RUNS_A_SEED = 4;
/** Beside the gates: what is left of them where fewer sessions overlap. */
const sparse: Workload = { ...mixed, requestsPerSecond: 12 };

const percent = (share: number): string => `${(100 * share).toFixed(0)} %`;
const meanOf = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

export async function benchRegimes(): Promise<readonly Figure[]> {
  return [
    ...figuresOf(mixed),
    ...recallFigures(),
    ...figuresOf(sparse).map((one) => ({
      ...one,
      figure: `${one.figure}, 12 requests/s`,
      goal: '',
      isMet: null,
    })),
  ];
}

function figuresOf(workload: Workload): Figure[] {
  const days = SEEDS.map((seed) => quietDay(workload, seed));
  const perDay = meanOf(days.map(({ falseAlarmCount }) => falseAlarmCount));
  const suspected = meanOf(days.map(({ suspectedShare }) => suspectedShare));
  const suspicions = meanOf(days.map(({ suspicionCount }) => suspicionCount));
  const figures: Figure[] = [
    {
      figure: 'false alarms in a simulated day',
      goal: '<= 1',
      measured: perDay.toFixed(1),
      interval: `days of ${days.map(({ falseAlarmCount }) => falseAlarmCount).join(', ')}; suspicions: ${suspicions.toFixed(0)} a day, ${(100 * suspected).toFixed(1)} % of it`,
      isMet: perDay <= 1,
    },
  ];
  for (const shift of shifts) {
    const runs = SEEDS.flatMap((seed) => Array.from({ length: RUNS_A_SEED }, (_, run) => 100 * seed + run));
    const delays = runs.map((seed) => delayOfShift(shift, workload, seed));
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
  return figures;
}

function recallFigures(): Figure[] {
  const counts = SEEDS.flatMap((seed) => workloads.map((_, leftOut) => recallWithout(leftOut, seed)));
  const sum = (name: keyof (typeof counts)[number]): number =>
    counts.reduce((total, count) => total + count[name], 0);
  const recalled = sum('recalled') / sum('recurrences');
  const rejected = sum('rejected') / sum('unseen');
  return [
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
