/**
 * `npm run bench -- serve`: the figures of serving and of the record, one file a question under serve/. Runs them one after
 * the other; `npm run bench -- serve NAME` runs one.
 */
import type { Figure } from './figure.ts';
import { type Parts, runParts } from './run-parts.ts';

const parts: Parts = {
  gateway: async () => (await import('./serve/gateway.ts')).benchGateway,
  'worker-kills': async () => (await import('./serve/worker-kills.ts')).benchWorkerKills,
  golden: async () => (await import('./serve/golden.ts')).benchGolden,
  'golden-after-death': async () => (await import('./serve/worker-kills.ts')).benchGoldenAfterDeath,
  store: async () => (await import('./serve/store.ts')).benchStore,
  'bad-input': async () => (await import('./serve/bad-input.ts')).benchBadInput,
  tiers: async () => (await import('./serve/tiers.ts')).benchTiers,
  streams: async () => (await import('./serve/streams.ts')).benchStreams,
  'batch-beside': async () => (await import('./serve/batch-beside.ts')).batchBeside,
};

/** @throws ConfigError for a part that is not there */
export const benchServe = (names: readonly string[]): Promise<readonly Figure[]> =>
  runParts('serve', parts, names);
