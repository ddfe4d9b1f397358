/**
 * The product over HTTP against other engines on the same weights: 16 requests at once (about 110 tokens in, 64 out, no
 * prefix shared) and one at a time, in rounds that take turns. A peer serves with one and with two threads; its better one
 * counts. node-llama-cpp has no server: it is asked through its JavaScript interface.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { loadModel } from '@variator/kernels/model';
import { generator } from '../../../apps/engine/cli/workload.ts';
import { startProduct } from '../../running-product.ts';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, spread } from '../figure.ts';
import { ratioInterval } from '../kernels/ratio-interval.ts';
import { type Arm, type Load, load, overHttp } from '../peers/arm.ts';
import { writeHuggingFaceFolder } from '../peers/hugging-face-folder.ts';
import { llamaCpp } from '../peers/llama-cpp.ts';
import { serveNodeLlamaCpp } from '../peers/node-llama-cpp.ts';
import { serveVllm } from '../peers/vllm.ts';
import type { Precision } from '../precisions.ts';

const USUAL_ROUNDS = 5;
const AT_ONCE = 16;
const THREAD_COUNTS = [1, 2];

interface Comparison {
  readonly label: string;
  readonly peerName: string;
  /** Of 16 at once, by the issue. */
  readonly leastRatio: number;
  /** What the product is started with. */
  readonly flags: readonly string[];
  readonly roundCount: number | null;
  start(threadCount: number): Promise<Arm>;
}

export interface BesideOptions {
  /** Where the peer is installed; null where it is not. */
  readonly place: string | null;
  readonly precisions: readonly Precision[];
  /** The execution path the product starts on; null for its own choice. */
  readonly path: string | null;
  /** null for as many as usual. */
  readonly roundCount: number | null;
}

export async function besideLlamaServer(options: BesideOptions): Promise<readonly Figure[]> {
  const { place } = options;
  if (place === null) return skipped('llama-server (name its folder with --peer-llama-cpp DIR)');
  return overFiles(place, options, 'llama-server', 1.5, (file, threadCount) =>
    llamaCpp(place).serve(file, AT_ONCE, threadCount),
  );
}

/** @param quantiser llama.cpp's folder; without it the default model's own file is compared */
export async function besideNodeLlamaCpp(
  options: BesideOptions,
  quantiser: string | null,
): Promise<readonly Figure[]> {
  const { place } = options;
  if (place === null)
    return skipped('node-llama-cpp (name where it is installed with --peer-node-llama-cpp DIR)');
  return overFiles(quantiser, options, 'node-llama-cpp', 4, (file, threadCount) =>
    serveNodeLlamaCpp(place, file, AT_ONCE, threadCount),
  );
}

/** Both on the same folder of bf16 weights; what the product makes of them is its path's affair. */
export async function besideVllm(options: BesideOptions): Promise<readonly Figure[]> {
  const { place } = options;
  if (place === null) return skipped('vLLM (name the Python it is installed for with --peer-vllm PYTHON)');
  return inScratch(async (path, label, scratch) => {
    const folder = join(scratch, 'bf16');
    writeHuggingFaceFolder(await loadModel(path), folder);
    return compare({
      label: `${label} in bf16`,
      peerName: 'vLLM',
      leastRatio: 1.5,
      flags: productFlags(folder, options.path),
      roundCount: options.roundCount,
      start: (threadCount) => serveVllm(place, folder, AT_ONCE, threadCount),
    });
  });
}

function skipped(what: string): readonly Figure[] {
  console.log(`  SKIPPED: ${what}`);
  return [];
}

const productFlags = (model: string, path: string | null): string[] => [
  ...['--model', model],
  ...(path === null ? [] : ['--path', path]),
];

function overFiles(
  quantiser: string | null,
  { precisions, path: executionPath, roundCount }: BesideOptions,
  peerName: string,
  leastRatio: number,
  serve: (file: string, threadCount: number) => Promise<Arm>,
): Promise<readonly Figure[]> {
  return inScratch(async (path, label, scratch) => {
    const figures: Figure[] = [];
    const compareOn = async (file: string, name: string) => {
      const start = (threadCount: number) => serve(file, threadCount);
      const flags = productFlags(file, executionPath);
      figures.push(...(await compare({ label: name, peerName, leastRatio, flags, roundCount, start })));
    };
    if (quantiser === null) await compareOn(path, `${label} as it ships`);
    else {
      const { quantise } = llamaCpp(quantiser);
      for (const precision of precisions) {
        const file = join(scratch, `${precision}.gguf`);
        await quantise(path, file, precision);
        await compareOn(file, `${label} ${precision}`);
        rmSync(file);
      }
    }
    return figures;
  });
}

async function inScratch(
  run: (path: string, label: string, scratch: string) => Promise<readonly Figure[]>,
): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  if (!path.endsWith('.gguf')) return skipped('other engines (the default model must be there)');
  const scratch = mkdtempSync(join(tmpdir(), 'variator-peer-'));
  try {
    return await run(path, label, scratch);
  } finally {
    rmSync(scratch, { recursive: true });
  }
}

async function compare({
  label,
  peerName,
  leastRatio,
  flags,
  roundCount,
  start,
}: Comparison): Promise<Figure[]> {
  const product = await startProduct({ flags });
  const own = { send: overHttp({ url: product.inferenceUrl, modelId: product.modelId, apiKey: null }) };
  const arms: Arm[] = [];
  try {
    for (const threadCount of THREAD_COUNTS) arms.push(await start(threadCount));
    const random = generator(7);
    for (const one of [own, ...arms]) await load(one, AT_ONCE, AT_ONCE, random);
    const crowd = { own: [] as Load[], arms: arms.map(() => [] as Load[]) };
    const alone = { own: [] as Load[], arms: arms.map(() => [] as Load[]) };
    for (let round = 0; round < (roundCount ?? USUAL_ROUNDS); round += 1) {
      crowd.own.push(await load(own, AT_ONCE, 2 * AT_ONCE, random));
      for (const [at, arm] of arms.entries()) crowd.arms[at]?.push(await load(arm, AT_ONCE, AT_ONCE, random));
      alone.own.push(await load(own, 1, 3, random));
      for (const [at, arm] of arms.entries()) alone.arms[at]?.push(await load(arm, 1, 2, random));
    }
    const figures = [
      ...compared(`${label}, 16 at once`, peerName, leastRatio, crowd.own, crowd.arms),
      ...compared(`${label}, one at a time`, peerName, null, alone.own, alone.arms),
    ];
    for (const one of figures) console.log(`    ${one.figure}: ${one.measured} (${one.interval})`);
    return figures;
  } finally {
    for (const arm of arms) await arm.stop();
    await product.stop();
    product.removeData();
  }
}

const rates = (loads: readonly Load[]) => loads.map(({ tokensPerSecond }) => tokensPerSecond);

/** `arms` in the order of THREAD_COUNTS. */
function compared(
  name: string,
  peerName: string,
  leastRatio: number | null,
  own: readonly Load[],
  arms: readonly (readonly Load[])[],
): Figure[] {
  const medians = arms.map((loads) => spread(rates(loads)).median);
  const at = medians.indexOf(Math.max(...medians));
  const best = arms[at] ?? [];
  const ratio = ratioInterval(
    own.map(({ tokensPerSecond }, index) => tokensPerSecond / (best[index]?.tokensPerSecond ?? Number.NaN)),
  );
  const times = (value: number): string => `${value.toFixed(2)}x`;
  const ttft = (loads: readonly Load[]) => spread(loads.map(({ ttftMs }) => ttftMs));
  return [
    {
      figure: `${name}: tok/s over ${peerName}'s (${THREAD_COUNTS[at]} of ${THREAD_COUNTS.join(' or ')} threads)`,
      goal: leastRatio === null ? '' : `>= ${leastRatio}`,
      measured: times(ratio.mean),
      interval: `${times(ratio.low)} to ${times(ratio.high)}, ${ratio.count} rounds`,
      isMet: leastRatio === null ? null : ratio.mean >= leastRatio,
    },
    figure(`${name}: ours`, spread(rates(own)), 'tok/s', '', null, 0),
    figure(`${name}: ${peerName}`, spread(rates(best)), 'tok/s', '', null, 0),
    figure(`${name}: our TTFT p50`, ttft(own), 'ms', '', null, 0),
    figure(`${name}: ${peerName}'s TTFT p50`, ttft(best), 'ms', '', null, 0),
  ];
}
