/**
 * `npm run fuzz [-- N [--seed S]]`: N mutated bodies against the whole product on the model that ships. Passes when no
 * answer is a server error, no process was replaced, and memory did not grow with the number of requests.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../../apps/engine/config.ts';
import { startProduct } from '../running-product.ts';
import { sendMutated } from './send-mutated.ts';

const WARM_UP_COUNT = 2000;
/** What heaps and caches may still take after the warm-up, however many requests follow. */
const MOST_GROWTH_MIB = 128;

export async function runFuzz(argv: readonly string[], root: string): Promise<number> {
  const at = argv.indexOf('--seed');
  const seed = at < 0 ? Date.now() % 1_000_000 : whole('--seed', argv[at + 1]);
  const count = argv[0] === undefined || at === 0 ? 10_000 : whole('the number of bodies', argv[0]);
  console.log(`${count} mutated bodies, --seed ${seed}`);
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
