/** `npx variator paths`: the kernel catalogue, and which of its variants this machine can run; with `--device cuda:N`, that GPU. */
import { catalogue, linearVariantsFor, splitTokensRange, type Variant } from '@variator/kernels/catalogue';
import { cudaKernels, cudaSplitTokensRange } from '@variator/kernels/cuda-variants';
import { attentionKernels, linearKernels, type ParameterRange } from '@variator/kernels/kernel-parameters';
import { tensorDtypes } from '@variator/kernels/model/model-shape';
import { loadNative } from '@variator/kernels/native';
import { cudaLibraryFiles, loadCuda } from '@variator/kernels/native-cuda';
import { readConfig } from '../config.ts';
import { table } from './table.ts';

export async function pathsCommand(argv: readonly string[]): Promise<number> {
  const { threadCount, device } = readConfig(argv);
  const probe = loadNative().probeMachine(threadCount);
  const linear = linearVariantsFor(probe.features);
  const gpu =
    device.kind === 'cuda' || device.kind === 'cuda-emulated'
      ? loadCuda(cudaLibraryFiles[device.kind], device.ordinal).device()
      : null;
  const isHere = ({ id, operation, device: own, needs }: Variant): boolean => {
    if (own === 'cuda') {
      const features =
        gpu === null ? [] : [`sm${gpu.computeCapability}`, gpu.hasGemmLibrary ? 'cublaslt' : ''];
      return needs.every((need) => features.includes(need));
    }
    return operation !== 'linear' || linear.some((one) => one === id);
  };
  console.log(`${probe.cpuModel}, ${probe.coreCount} cores; ${probe.features.join(' ')}`);
  console.log(
    gpu === null
      ? 'No GPU was asked about (--device cuda:N).\n'
      : `${device.text}: ${gpu.name}, compute capability ${gpu.computeCapability / 10}\n`,
  );
  console.log(
    table(
      ['variant', 'here', 'bits', 'dtypes kept exactly', 'needs', 'what it is'],
      catalogue.map((variant) => [
        variant.id,
        isHere(variant) ? 'yes' : 'no',
        variant.isBatchInvariant ? variant.bits : `${variant.bits} (by the step)`,
        variant.exactDtypes.length === tensorDtypes.length ? 'all' : variant.exactDtypes.join(' '),
        variant.needs.join(' '),
        variant.summary,
      ]),
    ),
  );
  console.log(
    '\nVariants of an operation with the same bits give the same tokens. How near each is to the reference:',
  );
  for (const [kind, tolerance] of tolerances()) console.log(`  ${kind}: ${tolerance}`);
  console.log('\nHow packed linear variants multiply, by the rows of a step; parameters change no bit:');
  console.log(table(['kernel', 'rows', 'parameter', 'range', 'what it is'], parameterRows(linearKernels)));
  console.log('\nHow attention by splits is computed, by the rows that a step has of a sequence; the same:');
  console.log(table(['kernel', 'rows', 'parameter', 'range', 'what it is'], parameterRows(attentionKernels)));
  console.log("\nWhat a GPU's kernels may be told; none of it changes a bit:");
  console.log(
    table(
      ['kernel', 'parameter', 'values', 'usual', 'what it is'],
      cudaKernels.flatMap(({ id, parameters }) =>
        Object.entries(parameters).map(([name, { values, usual, meaning }]) => [
          id,
          name,
          values.join(' '),
          String(usual),
          meaning,
        ]),
      ),
    ),
  );
  console.log(
    '\nAn execution path is a choice of these plus limits: --path balanced | latency | throughput | reference,',
  );
  console.log('with settings where wanted: --path balanced,tokenBudget=64,maxRunningCount=8');
  const { least, most, usual } = splitTokensRange;
  console.log(
    `splits of a context, which decide bits: --path balanced,splitTokens=${usual} (powers of two from ${least} to ${most}; on a GPU from ${cudaSplitTokensRange.least} to ${cudaSplitTokensRange.most})`,
  );
  console.log(
    'and parameters over those that were measured at the start: --path balanced,tiles=full.slabRows=48+decode.prefetchBlocks=2; on a GPU tiles=gemv.rowsPerWarp=4+graphs.use=0',
  );
  return 0;
}

interface Kernel {
  readonly id: string;
  readonly mostRows: number;
  readonly parameters: Readonly<Record<string, ParameterRange>>;
}

const parameterRows = (kernels: readonly Kernel[]): string[][] =>
  kernels.flatMap(({ id, mostRows, parameters }, index) =>
    Object.entries(parameters).map(([name, { least, most, meaning }]) => [
      id,
      rowsInWords((kernels[index - 1]?.mostRows ?? 0) + 1, mostRows),
      name,
      `${least} to ${most}`,
      meaning,
    ]),
  );

const rowsInWords = (least: number, most: number): string =>
  Number.isFinite(most) ? `${least} to ${most}` : `${least} and more`;

/** One line for the variants of an operation that share bits. */
function tolerances(): Map<string, string> {
  return new Map(
    catalogue.map(({ operation, bits, tolerance }) => [
      `${operation}, ${bits}`,
      tolerance === '' ? 'the reference itself' : tolerance,
    ]),
  );
}
