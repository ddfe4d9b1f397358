/**
 * The kernels against llama.cpp on the same weights: blocks in the order ours, theirs, theirs, ours, each between two probes
 * of the machine's bandwidth and arithmetic. A pair whose probes or foreign CPU share stand out is dropped for both. Each
 * peer runs with its better thread count of 1 and 2, found first. Called by `npm run bench -- kernels --peer-llama-cpp DIR`.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { benchModel } from '../bench-model.ts';
import type { Figure } from '../figure.ts';
import { type LlamaCpp, llamaCpp } from '../peers/llama-cpp.ts';
import { writeRandomTinyLlama } from './random-tiny-llama.ts';
import { type RatioInterval, ratioInterval } from './ratio-interval.ts';
import { type StepRuns, type StepShape, stepRuns } from './step-runs.ts';

/** Probes may differ from the run's median by so much, and others may use so much of the CPU. */
const PROBE_SHARE = 0.1;
const FOREIGN_SHARE = 0.03;
const NEW_TOKENS = 32;

interface PeerShape {
  readonly name: string;
  readonly step: StepShape;
  readonly kind: 'prefill' | 'decode';
  /** By precision: at least so many times the peer. */
  readonly goals: Readonly<Record<Precision, number>>;
}
type Precision = 'Q8_0' | 'Q4_0';

const decode = (sequenceCount: number): Pick<PeerShape, 'step' | 'kind'> => ({
  kind: 'decode',
  step: { sequenceCount, tokensEach: 1, contextLength: 128 + NEW_TOKENS / 2 },
});
const prefill = (tokensEach: number): Pick<PeerShape, 'step' | 'kind'> => ({
  kind: 'prefill',
  step: { sequenceCount: 1, tokensEach, contextLength: 0 },
});
const shapesFor = (isSmall: boolean): readonly PeerShape[] => [
  { name: 'decode, batch 1', ...decode(1), goals: isSmall ? { Q8_0: 1.2, Q4_0: 1.2 } : { Q8_0: 1, Q4_0: 1 } },
  { name: 'decode, batch 16', ...decode(16), goals: { Q8_0: 2, Q4_0: 1.5 } },
  { name: 'prefill of 128', ...prefill(128), goals: { Q8_0: 1.8, Q4_0: 1.8 } },
  { name: 'prefill of 512', ...prefill(512), goals: { Q8_0: 1.8, Q4_0: 1.8 } },
];

interface Block {
  readonly rate: number;
  readonly probes: readonly { readBytesPerSecond: number; float32FlopsPerSecond: number }[];
  readonly foreignCpuShare: number;
}

export async function benchPeer(folder: string | null, pairCount: number, largeModel: string | null) {
  if (folder === null) {
    console.log('  SKIPPED: llama.cpp (name its folder with --peer-llama-cpp DIR)');
    return [];
  }
  const peer = llamaCpp(folder);
  const scratch = mkdtempSync(join(tmpdir(), 'variator-peer-'));
  const figures: Figure[] = [];
  try {
    const { path, label } = await benchModel();
    if (path.endsWith('.gguf')) {
      for (const precision of ['Q8_0', 'Q4_0'] as const) {
        const file = join(scratch, `${precision}.gguf`);
        await peer.quantise(path, file, precision);
        figures.push(
          ...(await benchModelFile(peer, file, `${label} ${precision}`, precision, true, pairCount)),
        );
        rmSync(file);
      }
    } else console.log('  SKIPPED: SmolLM2-135M against llama.cpp (the model is not there)');
    if (largeModel !== null) {
      mkdirSync(largeModel, { recursive: true });
      const file = join(largeModel, 'tiny-llama-1.1b-random.Q8_0.gguf');
      if (!existsSync(file)) await writeRandomTinyLlama(file);
      figures.push(
        ...(await benchModelFile(peer, file, 'TinyLlama-1.1B shape Q8_0', 'Q8_0', false, pairCount)),
      );
    }
  } finally {
    rmSync(scratch, { recursive: true });
  }
  return figures;
}

async function benchModelFile(
  peer: LlamaCpp,
  model: string,
  label: string,
  precision: Precision,
  isSmall: boolean,
  pairCount: number,
): Promise<Figure[]> {
  const runs = await stepRuns(model, 2, 16 * 192);
  try {
    await runs.prepare(runs.fastest);
    const figures: Figure[] = [];
    for (const shape of shapesFor(isSmall)) {
      figures.push(...(await benchShape(peer, model, label, precision, shape, runs, pairCount)));
    }
    return figures;
  } finally {
    runs.close();
  }
}

async function benchShape(
  peer: LlamaCpp,
  model: string,
  label: string,
  precision: Precision,
  shape: PeerShape,
  runs: StepRuns,
  pairCount: number,
): Promise<Figure[]> {
  const theirs = async (threadCount: number): Promise<number> => {
    const { sequenceCount, tokensEach } = shape.step;
    const [promptTokens, newTokens] = shape.kind === 'decode' ? [128, NEW_TOKENS] : [tokensEach, 1];
    const rates = await peer.batched({ model, promptTokens, newTokens, sequenceCount, threadCount });
    return shape.kind === 'decode' ? rates.decodeRate : rates.prefillRate;
  };
  const block = async (rate: () => Promise<{ rate: number; foreignCpuShare: number }>): Promise<Block> => {
    const before = runs.probe();
    const measured = await rate();
    return { ...measured, probes: [before, runs.probe()] };
  };
  const ownBlock = (threadCount: number) => block(() => ownRate(runs, shape.step, threadCount));
  const peerBlock = (threadCount: number) =>
    block(async () => ({ rate: await theirs(threadCount), foreignCpuShare: 0 }));

  const best = async (of: (threadCount: number) => Promise<Block>) => {
    const [one, two] = [(await of(1)).rate, (await of(2)).rate];
    return one > two ? 1 : 2;
  };
  const [ownThreads, peerThreads] = [await best(ownBlock), await best(peerBlock)];
  const pairs: { own: Block; other: Block }[] = [];
  while (pairs.length < pairCount) {
    const isOwnFirst = pairs.length % 2 === 0;
    const first = await (isOwnFirst ? ownBlock(ownThreads) : peerBlock(peerThreads));
    const second = await (isOwnFirst ? peerBlock(peerThreads) : ownBlock(ownThreads));
    pairs.push(isOwnFirst ? { own: first, other: second } : { own: second, other: first });
  }
  const kept = undisturbed(pairs);
  const isEnough = kept.length >= 3;
  const judged = isEnough ? kept : pairs;
  const ratio = ratioInterval(judged.map(({ own, other }) => own.rate / other.rate));
  const name = `${label}, ${shape.name}`;
  const dropped = isEnough
    ? `${pairs.length - kept.length} of ${pairs.length} pairs dropped`
    : `all ${pairs.length} pairs, ${pairs.length - kept.length} of them disturbed`;
  const goal = shape.goals[precision];
  return [
    {
      figure: `${name}: ${runs.fastest} / llama.cpp`,
      goal: `>= ${goal}`,
      measured: ratio.mean.toFixed(2),
      interval: `${inWords(ratio)}; ${dropped}`,
      isMet: ratio.mean >= goal,
    },
    {
      figure: `${name}: tok/s here on ${ownThreads} threads, of llama.cpp on ${peerThreads}`,
      goal: '',
      measured: `${median(judged.map(({ own }) => own.rate)).toFixed(0)}, ${median(judged.map(({ other }) => other.rate)).toFixed(0)}`,
      interval: `read ${(median(bandwidths(judged)) / 1e9).toFixed(0)} GB/s, ${(median(flops(judged)) / 1e9).toFixed(0)} GFLOP/s`,
      isMet: null,
    },
  ];
}

/** Median of the steps of a second or so, the first one left out. */
async function ownRate(runs: StepRuns, step: StepShape, threadCount: number) {
  const tokens = step.sequenceCount * step.tokensEach;
  await runs.run(step, runs.fastest, threadCount);
  const times: number[] = [];
  const foreign: number[] = [];
  const end = performance.now() + 700;
  while (times.length < 3 || performance.now() < end) {
    const { deviceMs, foreignCpuShare } = await runs.run(step, runs.fastest, threadCount);
    times.push(deviceMs);
    foreign.push(foreignCpuShare);
  }
  return { rate: (1000 * tokens) / median(times), foreignCpuShare: median(foreign) };
}

const bandwidths = (pairs: readonly { own: Block; other: Block }[]) =>
  pairs.flatMap(({ own, other }) =>
    [...own.probes, ...other.probes].map((probe) => probe.readBytesPerSecond),
  );
const flops = (pairs: readonly { own: Block; other: Block }[]) =>
  pairs.flatMap(({ own, other }) =>
    [...own.probes, ...other.probes].map((probe) => probe.float32FlopsPerSecond),
  );

function undisturbed(pairs: readonly { own: Block; other: Block }[]) {
  const [usualRead, usualFlops] = [median(bandwidths(pairs)), median(flops(pairs))];
  const isNear = (value: number, usual: number) => Math.abs(value / usual - 1) <= PROBE_SHARE;
  return pairs.filter((pair) => {
    const isUsual =
      bandwidths([pair]).every((value) => isNear(value, usualRead)) &&
      flops([pair]).every((value) => isNear(value, usualFlops));
    return isUsual && pair.own.foreignCpuShare <= FOREIGN_SHARE;
  });
}

const inWords = ({ low, high, count }: RatioInterval) =>
  `${low.toFixed(2)} to ${high.toFixed(2)}, ${count} pairs`;

function median(values: readonly number[]): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.floor(sorted.length / 2)] ?? Number.NaN;
}
