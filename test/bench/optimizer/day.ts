/**
 * `npm run bench -- optimizer day`: simulated days of five regimes, two of which come again, seeds 6 and 7; each is some ten
 * minutes of computing. Nothing here is timed. The day is in packages/optimizer/simulated-day.fixture.ts.
 */
import { playDay } from '../../../packages/optimizer/simulated-day.fixture.ts';
import type { Figure } from '../figure.ts';

const SEEDS = [6, 7];

const over = (ratio: number): string => `${ratio >= 1 ? '+' : ''}${(100 * (ratio - 1)).toFixed(1)} %`;

export async function benchDay(): Promise<readonly Figure[]> {
  const days = SEEDS.map((seed) => playDay(seed));
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const ratio = mean(days.map((day) => day.ratio));
  const falseSwitches = days.map((day) => day.falseSwitchCount);
  const violating = days.reduce((sum, day) => sum + day.violatingCount, 0);
  const figures: Figure[] = [
    {
      figure: 'device ms per good request over the oracle, outside the grace',
      goal: '<= 3 %',
      measured: over(ratio),
      interval: `days ${days.map((day) => over(day.ratio)).join(', ')}; without any change ${over(mean(days.map((day) => day.ratioOfStart)))}`,
      isMet: ratio <= 1.03,
    },
    {
      figure: 'false switches a day',
      goal: '<= 1',
      measured: mean(falseSwitches).toFixed(1),
      interval: `days of ${falseSwitches.join(', ')}`,
      isMet: mean(falseSwitches) <= 1,
    },
    {
      figure: 'switches that break an ITL objective that was kept',
      goal: '0',
      measured: String(violating),
      interval: `${days.length} days`,
      isMet: violating === 0,
    },
  ];
  const phases = days[0]?.phases ?? [];
  return [
    ...figures,
    ...phases.map(({ name, isRecurring }, index): Figure => {
      const own = days.flatMap((day) => day.phases[index] ?? []);
      return {
        figure: `${name}${isRecurring ? ' again' : ''}, over the oracle`,
        goal: '',
        measured: over(mean(own.map((phase) => phase.ratio))),
        interval: `last switch after ${own.map(({ lastSwitchMinute }) => lastSwitchMinute?.toFixed(0) ?? '-').join(', ')} min; ${own.map(({ canaryCount }) => canaryCount).join(', ')} canaries; unchanged ${over(mean(own.map((phase) => phase.ratioOfStart)))}`,
        isMet: null,
      };
    }),
  ];
}
