/**
 * `npm run bench -- serve`: the figures of serving and of the record, one file a question under serve/. Runs them one after
 * the other; `npm run bench -- serve NAME` runs one.
 */
import { ConfigError } from '../../apps/engine/config.ts';
import type { Figure } from './figure.ts';

type Part = () => Promise<readonly Figure[]>;

const parts: Readonly<Record<string, () => Promise<Part>>> = {
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
export async function benchServe(argv: readonly string[]): Promise<readonly Figure[]> {
  const unknown = argv.find((name) => !Object.hasOwn(parts, name));
  if (unknown !== undefined) {
    throw new ConfigError(`serve has no part "${unknown}"; there are ${Object.keys(parts).join(', ')}.`);
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
