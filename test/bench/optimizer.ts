/**
 * `npm run bench -- optimizer`: the gates of the optimizer, one file a part under optimizer/. Runs them one after the other;
 * `npm run bench -- optimizer NAME` runs one. Tests hold seeds 1 to 5 to the same gates; here are 6 to 10.
 */
import { ConfigError } from '../../apps/engine/config.ts';
import type { Figure } from './figure.ts';

type Part = () => Promise<readonly Figure[]>;

const parts: Readonly<Record<string, () => Promise<Part>>> = {
  'step-time': async () => (await import('./optimizer/step-time.ts')).benchStepTime,
  'step-time-cpu': async () => (await import('./optimizer/step-time-cpu.ts')).benchStepTimeOnCpu,
  cost: async () => (await import('./optimizer/cost.ts')).benchCost,
  regimes: async () => (await import('./optimizer/regimes.ts')).benchRegimes,
  scheduling: async () => (await import('./optimizer/scheduling.ts')).benchScheduling,
};

/** @throws ConfigError for a part that is not there */
export async function benchOptimizer(argv: readonly string[]): Promise<readonly Figure[]> {
  const unknown = argv.find((name) => !Object.hasOwn(parts, name));
  if (unknown !== undefined) {
    throw new ConfigError(`optimizer has no part "${unknown}"; there are ${Object.keys(parts).join(', ')}.`);
  }
  const names = argv.length > 0 ? argv : Object.keys(parts);
  const figures: Figure[] = [];
  for (const name of names) {
    console.log(`  ${name}`);
    const load = parts[name];
    if (load !== undefined) figures.push(...(await (await load())()));
  }
  return figures;
}
