/**
 * Which worker gets a request, on four simulated H100s behind the gateway's own router code: agents, chats and batch calls in
 * closed loop, at three loads, seeds 8 and 9, beside other policies. Virtual time: nothing here depends on the machine. What
 * was chosen by looking was chosen on seed 1.
 */
import { policies, runFleet } from '@variator/optimizer/fleet-run.fixture';
import { agentsAndChats } from '@variator/optimizer/fleet-traffic.fixture';
import type { Figure } from '../figure.ts';

const SEEDS = [8, 9];
const SPAN_MS = 200_000;
/** Sessions a second; below 1.6 every policy that keeps prefixes keeps the objectives, at 2.6 none does. */
const LOADS = { light: 1.4, middling: 2, heavy: 2.6 } as const;
/** Whom the gateway's own must not fall behind. */
const RIVALS = ['session-sticky', 'LMetric', 'cache-aware'];
const ALLOWED_LOSS = 0.01;
/** Known to lose; at one load they say by how much. */
const LOAD_ONLY = ['least load', 'round robin'];

export async function benchRouting(): Promise<readonly Figure[]> {
  return Object.entries(LOADS).flatMap(([load, sessionsPerSecond]) => {
    const names = ['gateway', ...RIVALS, ...(load === 'middling' ? LOAD_ONLY : [])];
    const runs = names.map((name) => ({
      name,
      runs: SEEDS.map((seed) =>
        runFleet({
          traffic: { mix: agentsAndChats, sessionsPerSecond, spanMs: SPAN_MS, seed },
          policy: policies[name]?.() ?? policyFault(name),
        }),
      ),
    }));
    console.log(`    ${load} load: ${runs.map(({ name }) => name).join(', ')}`);
    const goodOf = (name: string): number =>
      mean(runs.find((each) => each.name === name)?.runs.map(({ goodShare }) => goodShare) ?? []);
    const best = RIVALS.reduce((a, b) => (goodOf(b) > goodOf(a) ? b : a));
    const gap = goodOf('gateway') - goodOf(best);
    const ratios = runs[0]?.runs.map(({ loadRatio }) => loadRatio) ?? [];
    return [
      ...runs.map(({ name, runs: own }): Figure => {
        const of = (value: (run: (typeof own)[number]) => number): number => mean(own.map(value));
        return {
          figure: `${load} load, ${name}: requests within their objectives`,
          goal: '',
          measured: `${(100 * goodOf(name)).toFixed(1)} %`,
          interval:
            `${own.map(({ goodShare }) => (100 * goodShare).toFixed(1)).join(', ')}; ${of(({ deviceMsPerRequest }) => deviceMsPerRequest).toFixed(0)} device ms a request, ` +
            `${(100 * of(({ cachedShare }) => cachedShare)).toFixed(0)} % cached, chats' TTFT p99 ${(of(({ ttftP99Ms }) => ttftP99Ms.chat ?? 0) / 1000).toFixed(1)} s`,
          isMet: null,
        };
      }),
      {
        figure: `${load} load: the gateway's against the best of the others (${best})`,
        goal: '>= -1 point',
        measured: `${(100 * gap).toFixed(1)} points`,
        interval: `regret ${(100 * Math.max(0, -gap)).toFixed(1)} points`,
        isMet: gap >= -ALLOWED_LOSS,
      },
      {
        figure: `${load} load: the busiest worker to the idlest`,
        goal: '< 2',
        measured: Math.max(...ratios).toFixed(2),
        interval: ratios.map((ratio) => ratio.toFixed(2)).join(', '),
        isMet: Math.max(...ratios) < 2,
      },
    ];
  });
}

function policyFault(name: string): never {
  throw new Error(`There is no policy "${name}".`);
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / values.length;
