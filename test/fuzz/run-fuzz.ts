/**
 * `npm run fuzz [-- N [--seed S]]`: N mutated bodies against the whole product on the model that ships. Passes when no
 * answer is a server error, no process was replaced, and memory did not grow with the number of requests.
 * `npm run fuzz -- models [N [--seed S]]`: N mutated model files, each read as a model that computes or refused.
 */
import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { ConfigError } from '../../apps/engine/config/config-error.ts';
import { startProduct } from '../running-product.ts';
import { loadMutated } from './load-mutated.ts';
import { sendMutated } from './send-mutated.ts';

const WARM_UP_COUNT = 2000;
/** What heaps and caches may still take after the warm-up, however many requests follow. */
const MOST_GROWTH_MIB = 128;
/** The files are a few megabytes; whoever believes a count in them takes gigabytes. */
const MOST_PEAK_MIB = 1024;

export async function runFuzz(argv: readonly string[], root: string): Promise<number> {
  const isOfModels = argv[0] === 'models';
  const [first, ...rest] = isOfModels ? argv.slice(1) : argv;
  const given = first === undefined ? [] : [first, ...rest];
  const at = given.indexOf('--seed');
  const seed = at < 0 ? Date.now() % 1_000_000 : whole('--seed', given[at + 1]);
  const count = first === undefined || at === 0 ? 10_000 : whole('how many', first);
  console.log(`${count} mutated ${isOfModels ? 'model files' : 'bodies'}, --seed ${seed}`);
  return isOfModels ? fuzzModels(count, seed, root) : fuzzBodies(count, seed, root);
}

async function fuzzModels(count: number, seed: number, root: string): Promise<number> {
  const folder = mkdtempSync(join(tmpdir(), 'variator-mutants-'));
  const story = join(root, 'models/stories-5m');
  const outcome = await loadMutated({
    story,
    folder,
    count,
    seed,
    onLoaded: (loaded) => {
      if (loaded > 0 && loaded % 10_000 === 0)
        console.log(`  ${loaded} read, ${rssMib(process.pid)} MiB resident`);
    },
  });
  const { loadedCount, refusedCount, sentenceCount, slowestMs, faults } = outcome;
  console.log(
    `  ${loadedCount} computed, ${refusedCount} were refused in ${sentenceCount} sentences, the slowest took ${slowestMs.toFixed(0)} ms`,
  );
  for (const fault of faults) console.log(`  FAULT ${fault.index} (${fault.what}) ${fault.outcome}`);
  const peakMib = Math.round(process.resourceUsage().maxRSS / 1024);
  const isGood = faults.length === 0 && peakMib < MOST_PEAK_MIB;
  if (faults.length > 0) console.log(`  the files are in ${folder}`);
  else rmSync(folder, { recursive: true });
  console.log(`${isGood ? 'passed' : 'failed'}: ${faults.length} faults, at most ${peakMib} MiB resident`);
  return isGood ? 0 : 1;
}

async function fuzzBodies(count: number, seed: number, root: string): Promise<number> {
  // The KV cache is taken as it is first used; a large one would look like growth.
  const flags = ['--model', join(root, 'models/stories-5m'), '--kv-memory', '32MiB'];
  const product = await startProduct({ flags });
  try {
    const parts = () =>
      product.processes().filter(({ commandLine }) => /engine\/(worker\/)?main\.ts/.test(commandLine));
    const target = { url: product.inferenceUrl, modelId: product.modelId };
    await sendMutated(target, { count: WARM_UP_COUNT, seed: seed + 1 });
    const before = parts().map((part) => ({ ...part, rssMib: rssMib(part.pid) }));
    const startedAt = performance.now();
    const outcome = await sendMutated(target, {
      count,
      seed,
      onSent: (sent) => {
        if (sent % 10_000 === 0) console.log(`  ${sent} sent`);
      },
    });
    const seconds = (performance.now() - startedAt) / 1000;
    const alive = new Set(parts().map(({ pid }) => pid));
    const lost = before.filter(({ pid }) => !alive.has(pid));
    const grown = before.map((part) => ({ ...part, afterMib: alive.has(part.pid) ? rssMib(part.pid) : 0 }));
    console.log(
      `  ${(count / seconds).toFixed(0)} a second, by status ${JSON.stringify(outcome.byStatus)}, ${outcome.leftCount} left`,
    );
    for (const { commandLine, rssMib: was, afterMib } of grown) {
      const name = commandLine.includes('worker/main') ? 'worker' : 'gateway';
      console.log(`  ${name}: ${was} MiB resident after the warm-up, ${afterMib} MiB at the end`);
    }
    for (const fault of outcome.faults)
      console.log(`  FAULT ${fault.path} ${fault.outcome}\n    ${fault.body}`);
    const tooBig = grown.filter(({ rssMib: was, afterMib }) => afterMib - was > MOST_GROWTH_MIB);
    const isGood =
      before.length === 2 && lost.length === 0 && outcome.faults.length === 0 && tooBig.length === 0;
    console.log(
      `${isGood ? 'passed' : 'failed'}: ${outcome.faults.length} faults, ${lost.length} processes lost, ${tooBig.length} grown by more than ${MOST_GROWTH_MIB} MiB`,
    );
    return isGood ? 0 : 1;
  } finally {
    await product.stop();
    product.removeData();
  }
}

function whole(name: string, text: string | undefined): number {
  const value = Number(text);
  if (!Number.isInteger(value) || value < 1 || value > 1e9) {
    throw new ConfigError(
      `${name} must be a whole number from 1 to 1000000000: npm run fuzz -- 100000 --seed 7.`,
    );
  }
  return value;
}

function rssMib(pid: number): number {
  const kib = /VmRSS:\s+(\d+)/.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))?.[1];
  return Math.round(Number(kib ?? 0) / 1024);
}
