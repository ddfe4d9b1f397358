/**
 * `npm run bench -- optimizer`: the gates of the optimizer, one file a part under optimizer/. Runs them one after the other;
 * `npm run bench -- optimizer NAME` runs one. Tests hold smaller runs on seeds 1 to 5; here are 6 to 10.
 */
import type { Figure } from './figure.ts';
import { type Parts, runParts } from './run-parts.ts';

const parts: Parts = {
  'step-time': async () => (await import('./optimizer/step-time.ts')).benchStepTime,
  'step-time-cpu': async () => (await import('./optimizer/step-time-cpu.ts')).benchStepTimeOnCpu,
  twin: async () => (await import('./optimizer/twin.ts')).benchTwin,
  routing: async () => (await import('./optimizer/routing.ts')).benchRouting,
  specialise: async () => (await import('./optimizer/specialise.ts')).benchSpecialise,
  'twin-speed': async () => (await import('./optimizer/twin-speed.ts')).benchTwinSpeed,
  cost: async () => (await import('./optimizer/cost.ts')).benchCost,
  regimes: async () => (await import('./optimizer/regimes.ts')).benchRegimes,
  'service-cost': async () => (await import('./optimizer/service-cost.ts')).benchServiceCost,
  search: async () => (await import('./optimizer/search.ts')).benchSearch,
  day: async () => (await import('./optimizer/day.ts')).benchDay,
  scheduling: async () => (await import('./optimizer/scheduling.ts')).benchScheduling,
};

/** @throws ConfigError for a part that is not there */
export const benchOptimizer = (names: readonly string[]): Promise<readonly Figure[]> =>
  runParts('optimizer', parts, names);
