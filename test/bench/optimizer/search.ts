/**
 * `npm run bench -- optimizer search`: the search against realities that differ from what it knows, 40 worlds of seeds 6 to
 * 10 with 5 runs each. Nothing here is timed. The worlds are in packages/optimizer/search-gates.fixture.ts.
 */

import { quantile } from '../../../packages/optimizer/quantile.ts';
import {
  EXPLORING,
  MOST_CANARIES,
  makeWorld,
  runSearch,
  type SearchRun,
  WORTH_ASKING,
} from '../../../packages/optimizer/search-gates.fixture.ts';
import { type Figure, spread } from '../figure.ts';

const SEEDS = [6, 7, 8, 9, 10];
const WORLDS_A_SEED = 8;
const RUNS_A_WORLD = 5;

const percent = (share: number): string => `${(100 * share).toFixed(1)} %`;

export async function benchSearch(): Promise<readonly Figure[]> {
  const runs: SearchRun[] = [];
  const asked: SearchRun[] = [];
  for (const seed of SEEDS) {
    for (let place = 0; place < WORLDS_A_SEED; place += 1) {
      const number = 100 * seed + place;
      const world = makeWorld(number);
      for (let draw = 0; draw < RUNS_A_WORLD; draw += 1) {
        runs.push(runSearch(world, 10 * number + draw, EXPLORING));
        asked.push(runSearch(world, 10 * number + draw, WORTH_ASKING));
      }
    }
  }
  const regrets = runs.map(({ regret }) => regret);
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / values.length;
  const violating = runs.reduce((sum, { violatingCount }) => sum + violatingCount, 0);
  const canaries = spread(runs.map(({ canaryCount }) => canaryCount));
  return [
    {
      figure: `regret against hindsight after ${MOST_CANARIES} canaries, mean`,
      goal: '<= 2 %',
      measured: percent(mean(regrets)),
      interval: `median ${percent(quantile(regrets, 0.5))}, p90 ${percent(quantile(regrets, 0.9))}, ${runs.length} runs; at the start ${percent(mean(runs.map(({ regretAtStart }) => regretAtStart)))}`,
      isMet: mean(regrets) <= 0.02,
    },
    {
      figure: 'paths promoted that miss the ITL objective',
      goal: '0',
      measured: String(violating),
      interval: `of ${runs.reduce((sum, { promotedCount }) => sum + promotedCount, 0)} promoted`,
      isMet: violating === 0,
    },
    {
      figure: 'regret where only gains of 3 % and more are proposed',
      goal: '',
      measured: percent(mean(asked.map(({ regret }) => regret))),
      interval: `${asked.reduce((sum, { violatingCount }) => sum + violatingCount, 0)} promoted that miss the objective`,
      isMet: null,
    },
    {
      figure: 'canaries until it had enough',
      goal: '',
      measured: canaries.median.toFixed(0),
      interval: `${canaries.low} to ${canaries.high}`,
      isMet: null,
    },
  ];
}
