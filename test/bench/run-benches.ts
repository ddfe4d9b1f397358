/**
 * `npm run bench [-- NAME]`: runs the benches one after the other, prints a table each and `N met, N missed`, and writes
 * results/NAME.json. Called by the command line's main.ts. Timed assertions live here, never in the tests.
 */
import { mkdirSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { join } from 'node:path';
import { table } from '../../apps/engine/cli/table.ts';
import { ConfigError } from '../../apps/engine/config/config-error.ts';
import type { Figure } from './figure.ts';

type Bench = (argv: readonly string[]) => Promise<readonly Figure[]>;

const benches: Record<string, { about: string; load: () => Promise<Bench> }> = {
  kernels: {
    about: 'the fast path against the reference path and, with --peer-llama-cpp DIR, against llama.cpp',
    load: async () => (await import('./kernels.ts')).benchKernels,
  },
  engine: {
    about:
      'the engine: beside llama-server, beside a busy process, speculation, attention by KV format, switches, adapting',
    load: async () => (await import('./engine.ts')).benchEngine,
  },
  http: {
    about: 'tokens a second over HTTP, 1 and 16 requests at once',
    load: async () => (await import('./http.ts')).benchHttp,
  },
  start: {
    about: 'clean clone to first token; warm start to ready',
    load: async () => (await import('./start.ts')).benchStart,
  },
  paths: {
    about: 'the best path of two phases, and the step model on held-out steps',
    load: async () => (await import('./paths.ts')).benchPaths,
  },
  serve: {
    about: 'serving and the record: gateway, store, streams, lost workers, batches',
    load: async () => (await import('./serve.ts')).benchServe,
  },
  optimizer: {
    about: 'the gates of the optimizer: step times, cost, regimes, scheduling',
    load: async () => (await import('./optimizer.ts')).benchOptimizer,
  },
};

export async function runBenches(argv: readonly string[], root: string): Promise<number> {
  const [wanted, ...rest] = argv;
  const names = wanted === undefined || wanted.startsWith('--') ? Object.keys(benches) : [wanted];
  const flags = wanted?.startsWith('--') ? argv : rest;
  let metCount = 0;
  let missedCount = 0;
  for (const name of names) {
    const bench = benches[name];
    if (!bench) {
      const known = Object.entries(benches).map(([key, { about }]) => `  ${key.padEnd(10)} ${about}`);
      throw new ConfigError(`There is no bench "${name}"; there are\n${known.join('\n')}`);
    }
    console.log(`\n${name}: ${bench.about}`);
    const figures = await (await bench.load())(flags);
    console.log(
      table(
        ['figure', 'goal', 'measured', 'interval', ''],
        figures.map(({ figure, goal, measured, interval, isMet }) => [
          figure,
          goal,
          measured,
          interval,
          isMet === null ? '' : isMet ? 'met' : 'MISSED',
        ]),
      ),
    );
    metCount += figures.filter(({ isMet }) => isMet === true).length;
    missedCount += figures.filter(({ isMet }) => isMet === false).length;
    const folder = join(root, 'results');
    mkdirSync(folder, { recursive: true });
    const result = {
      bench: name,
      at: new Date().toISOString(),
      machine: `${cpus()[0]?.model ?? 'unknown'}, ${cpus().length} cores`,
      figures,
    };
    writeFileSync(join(folder, `${name}.json`), `${JSON.stringify(result, null, 2)}\n`);
  }
  console.log(`\n${metCount} met, ${missedCount} missed`);
  return 0;
}
