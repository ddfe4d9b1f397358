/** `npx variator paths`: the kernel catalogue, and which of its variants this machine can run. */
import { catalogue, linearVariantsFor } from '@variator/kernels/catalogue';
import { loadNative } from '@variator/kernels/native';
import { readConfig } from '../config.ts';
import { table } from './table.ts';

export async function pathsCommand(argv: readonly string[]): Promise<number> {
  const { threadCount } = readConfig(argv);
  const probe = loadNative().probeMachine(threadCount);
  const linear = linearVariantsFor(probe.features);
  console.log(`${probe.cpuModel}, ${probe.coreCount} cores; ${probe.features.join(' ')}\n`);
  console.log(
    table(
      ['variant', 'here', 'numerics', 'batch-invariant', 'what it is'],
      catalogue.map(({ id, operation, numerics, isBatchInvariant, summary }) => [
        id,
        operation !== 'linear' || linear.some((one) => one === id)
          ? id === linear[0]
            ? 'fastest'
            : 'yes'
          : 'no',
        numerics,
        isBatchInvariant ? 'yes' : 'no',
        summary,
      ]),
    ),
  );
  console.log(
    '\nAn execution path is a choice of these plus limits: --path balanced | latency | throughput | reference,',
  );
  console.log('with settings where wanted: --path balanced,tokenBudget=64,maxRunningCount=8');
  return 0;
}
