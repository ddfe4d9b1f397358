/** The step-time model's gates on generated H100 steps, seeds 6 to 10: nothing was chosen by looking at these. No timing. */
import { fitStepTime } from '@variator/optimizer/fit-step-time';
import { foretold } from '@variator/optimizer/fixtures/foretold-steps';
import {
  h100Envelope,
  h100Path,
  h100Steps,
  WORKLOADS,
  type WorkloadName,
} from '@variator/optimizer/fixtures/h100-steps';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import type { StepSample } from '@variator/optimizer/step-sample';
import { predictMs, type StepTimeModel } from '@variator/scheduler/step-time';
import type { Figure } from '../figure.ts';

const SEEDS = [6, 7, 8, 9, 10];
const NAMES = Object.keys(WORKLOADS) as WorkloadName[];
const prior = rooflinePrior(h100Envelope, h100Path);

export async function benchStepTime(): Promise<readonly Figure[]> {
  const errors = new Map<string, number[]>();
  const add = (name: string, error: number): void => {
    errors.set(name, [...(errors.get(name) ?? []), error]);
  };
  for (const seed of SEEDS) {
    const streams = NAMES.map((name) => {
      const steps = h100Steps(name, 4000, seed);
      return { name, learn: steps.slice(0, 2000), test: steps.slice(2000) };
    });
    for (const from of streams) {
      const model = fit(from.learn);
      for (const to of streams) add(`${from.name} to ${to.name}`, mape(model, to.test));
      const thirty = from.learn.filter((_, index) => index % 66 === 33).slice(0, 30);
      add(`thirty ${from.name}`, mape(fit(thirty), from.test));
      add(`first ${from.name}`, mape(fit(from.learn.slice(0, 30)), from.test));
    }
  }
  const of = (name: string): number[] => errors.get(name) ?? [];
  const pairs = NAMES.flatMap((from) => NAMES.filter((to) => to !== from).map((to) => `${from} to ${to}`));
  const coverage = SEEDS.map((seed) => mean(foretold(seed).covered.map(Number)));
  return [
    percent(
      'in regime, all workloads',
      NAMES.flatMap((name) => of(`${name} to ${name}`)),
      4,
    ),
    ...NAMES.map((name) => percent(`in regime, ${name}`, of(`${name} to ${name}`), null)),
    percent('across regimes, all pairs', pairs.flatMap(of), 10),
    ...pairs.map((pair) => percent(pair, of(pair), 10)),
    percent(
      '30 steps spread over the window, in regime',
      NAMES.flatMap((name) => of(`thirty ${name}`)),
      6,
    ),
    percent(
      'the first 30 steps of a stream, in regime',
      NAMES.flatMap((name) => of(`first ${name}`)),
      null,
    ),
    {
      figure: 'generated H100: 90 % band, share of 10,000 steps within it',
      goal: '87 to 93 %',
      measured: `${(100 * mean(coverage)).toFixed(1)} %`,
      interval: range(coverage),
      isMet: coverage.every((share) => share >= 0.87 && share <= 0.93),
    },
  ];
}

const fit = (samples: readonly StepSample[]) =>
  fitStepTime({ samples, prior, deviceKind: 'h100', modelHash: 'm', kernelsId: 'k', now: 0 });

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;

const mape = (model: StepTimeModel, steps: readonly StepSample[]): number =>
  mean(steps.map((step) => Math.abs(predictMs(model, step) / step.deviceMs - 1)));

const range = (shares: readonly number[]): string =>
  `${(100 * Math.min(...shares)).toFixed(1)} to ${(100 * Math.max(...shares)).toFixed(1)} %, ${shares.length} runs`;

function percent(what: string, shares: readonly number[], most: number | null): Figure {
  return {
    figure: `generated H100: mean error, ${what}`,
    goal: most === null ? '' : `<= ${most} %`,
    measured: `${(100 * mean(shares)).toFixed(1)} %`,
    interval: range(shares),
    isMet: most === null ? null : mean(shares) <= most / 100,
  };
}
