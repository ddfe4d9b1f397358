import { expect, it } from 'vitest';
import { generator } from '../../../apps/engine/cli/workload.ts';
import { adaptiveFigures, againArm, Rates, switchedArm, type Window } from './adaptive-figures.ts';
import { gamma } from './adaptive-traffic.ts';

/** Rates by [phase][arm]; each seed scales them, as a slower minute does. */
function windowsOf(
  seeds: readonly number[],
  rates: Readonly<Record<string, Readonly<Record<string, number>>>>,
): Window[] {
  return seeds.flatMap((seed) =>
    Object.entries(rates).flatMap(([phase, arms]) =>
      Object.entries(arms).map(([arm, rate]) => ({
        ...{ seed, phase, arm, requestCount: 1, lateCount: 0, foreignCpuShare: 0, switchMs: 0 },
        tokensPerSecond: rate * (1 + seed / 10),
      })),
    ),
  );
}

const measured = {
  chat: { balanced: 100, wide: 50, [againArm]: 100, [switchedArm]: 99 },
  flood: { balanced: 100, wide: 400, [againArm]: 100, [switchedArm]: 396 },
};

it('a path per phase is chosen on the choosing rounds alone, and judged on the others', () => {
  const windows = [
    ...windowsOf([1], { chat: { balanced: 100, wide: 120 }, flood: { balanced: 100, wide: 300 } }),
    ...windowsOf([2, 3], measured),
  ];
  const rates = new Rates(windows);
  expect([...rates.bestByPhase([1], ['balanced', 'wide'])]).toEqual([
    ['chat', 'wide'],
    ['flood', 'wide'],
  ]);
  expect([...rates.bestByPhase([2, 3], ['balanced', 'wide']).values()]).toEqual(['balanced', 'wide']);
  // The choice was wrong for the chats, so that a path per phase gains nothing over the best one for all.
  const [first] = judge(windows).filter(({ figure }) =>
    figure.includes('best static path in hindsight (wide)'),
  );
  expect(first?.measured).toBe('1.000x');
});

it('ratios are paired within a round, so that a slow minute moves neither them nor their interval', () => {
  const figures = judge(windowsOf([1, 2, 3], measured));
  const of = (part: string) => figures.find(({ figure }) => figure.includes(part));
  expect(of('chance')).toMatchObject({ measured: '1.000x', interval: '1.000 to 1.000, 2 rounds' });
  expect(of('path per phase, chosen on other seeds, over balanced')?.measured).toBe('2.000x');
  expect(of('what the switches cost')?.measured).toBe('0.990x');
  // In tokens of the trace the flood weighs more: 500 of the two phases against 450.
  expect(of('path per phase over wide, tokens of the whole trace')?.measured).toBe('1.111x');
});

it('a window in which nothing was served in time counts as a tenth of the best', () => {
  const rates = new Rates(windowsOf([1], { chat: { balanced: 100, wide: 0 } }));
  expect(
    rates.ratios(
      [1],
      () => 'wide',
      () => 'balanced',
    ),
  ).toEqual([expect.closeTo(0.1)]);
});

it('a phase in which no path served anything in time tells none from another', () => {
  const rates = new Rates(
    windowsOf([1], { chat: { balanced: 0, wide: 0 }, flood: { balanced: 100, wide: 400 } }),
  );
  const ratios = rates.ratios(
    [1],
    () => 'wide',
    () => 'balanced',
  );
  expect(ratios).toEqual([expect.closeTo(2)]);
});

it('gaps between arrivals have the mean and the spread that are asked for', () => {
  const random = generator(1);
  for (const cv of [0.5, 1, 2]) {
    const shape = 1 / cv ** 2;
    const draws = Array.from({ length: 20_000 }, () => gamma(shape, random) / shape);
    const mean = draws.reduce((sum, draw) => sum + draw, 0) / draws.length;
    const variance = draws.reduce((sum, draw) => sum + (draw - mean) ** 2, 0) / draws.length;
    expect(Math.abs(mean - 1)).toBeLessThan(0.05);
    expect(Math.abs(Math.sqrt(variance) / cv - 1)).toBeLessThan(0.06);
  }
});

function judge(windows: readonly Window[]) {
  return adaptiveFigures({
    ...{ label: 'm', windows, choosingSeeds: [1], measuredSeeds: [2, 3] },
    ...{ staticArms: ['balanced', 'wide'], defaultArm: 'balanced', durationMs: () => 1000 },
  });
}
