/**
 * The kernels against llama.cpp on the same weights: blocks in the order ours, theirs, theirs, ours, each between two probes
 * of the machine's bandwidth and arithmetic. A pair whose probes or foreign CPU share stand out is dropped for both. Each
 * peer runs with its better thread count of 1 and 2, found first. Called by `npm run bench -- kernels steps steps-1.1b`.
 */
import { existsSync, mkdirSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { benchModel } from '../bench-model.ts';
import type { Figure } from '../figure.ts';
import { type LlamaCpp, llamaCpp } from '../peers/llama-cpp.ts';
import type { Precision } from '../precisions.ts';
import { tinyLlama, writeRandomLlama } from './random-llama.ts';
import { type RatioInterval, ratioInterval } from './ratio-interval.ts';
import { type StepRuns, type StepShape, stepRuns } from './step-runs.ts';

/** Probes may differ from the run's median by so much, and others may use so much of the CPU. */
const PROBE_SHARE = 0.1;
const FOREIGN_SHARE = 0.03;
const PROMPT_TOKENS = 128;
const NEW_TOKENS = 32;
/** Enough to tell which thread count is the better one. */
const TRIAL_PROMPT_TOKENS = 16;

export const shapeIds = ['decode-1', 'decode-16', 'prefill-128', 'prefill-512'] as const;
export type ShapeId = (typeof shapeIds)[number];

interface PeerShape {
  readonly id: ShapeId;
  readonly name: string;
  readonly step: StepShape;
  readonly kind: 'prefill' | 'decode';
  /** At least so many times the peer. */
  readonly goal: number;
  /** Bytes a second over the read probe's, at least; null where a step is more than reading. */
  readonly leastReadShare: number | null;
}
interface Goals {
  readonly alone: number;
  readonly crowd: number;
  readonly prefill: number;
  readonly readShare: number | null;
}
const smallGoals: Goals = { alone: 1.2, crowd: 2, prefill: 1.8, readShare: null };
const largeGoals: Goals = { alone: 1, crowd: 2, prefill: 1.8, readShare: 0.9 };

const decode = (sequenceCount: number): Pick<PeerShape, 'step' | 'kind'> => ({
  kind: 'decode',
  step: { sequenceCount, tokensEach: 1, contextLength: PROMPT_TOKENS + NEW_TOKENS / 2 },
});
const prefill = (tokensEach: number): Pick<PeerShape, 'step' | 'kind'> => ({
  kind: 'prefill',
  step: { sequenceCount: 1, tokensEach, contextLength: 0 },
});
const shapesFor = ({ alone, crowd, prefill: ahead, readShare }: Goals): readonly PeerShape[] => [
  { id: 'decode-1', name: 'decode, batch 1', ...decode(1), goal: alone, leastReadShare: readShare },
  { id: 'decode-16', name: 'decode, batch 16', ...decode(16), goal: crowd, leastReadShare: null },
  { id: 'prefill-128', name: 'prefill of 128', ...prefill(128), goal: ahead, leastReadShare: null },
  { id: 'prefill-512', name: 'prefill of 512', ...prefill(512), goal: ahead, leastReadShare: null },
];

interface Block {
  readonly rate: number;
  readonly probes: readonly { readBytesPerSecond: number; float32FlopsPerSecond: number }[];
  readonly foreignCpuShare: number;
}

export interface PeerOptions {
  readonly folder: string | null;
  readonly pairCount: number;
  readonly precisions: readonly Precision[];
  readonly shapes: readonly ShapeId[];
  /** Of the linear variants; null for the one that a worker begins with. */
  readonly kind: string | null;
}

/** Files of the default model, as llama.cpp's quantiser makes them. */
export async function benchSmallModel(options: PeerOptions): Promise<readonly Figure[]> {
  if (options.folder === null) return skipped();
  const { path, label } = await benchModel();
  if (!path.endsWith('.gguf')) {
    console.log('  SKIPPED: SmolLM2-135M against llama.cpp (the model is not there)');
    return [];
  }
  const peer = llamaCpp(options.folder);
  const scratch = mkdtempSync(join(tmpdir(), 'variator-peer-'));
  const figures: Figure[] = [];
  try {
    for (const precision of options.precisions) {
      const file = join(scratch, `${precision}.gguf`);
      await peer.quantise(path, file, precision);
      const goals = precision === 'Q8_0' ? smallGoals : { ...smallGoals, crowd: 1.5 };
      figures.push(...(await benchModelFile(peer, file, `${label} ${precision}`, goals, options)));
      rmSync(file);
    }
  } finally {
    rmSync(scratch, { recursive: true });
  }
  return figures;
}

/** Random weights in TinyLlama's shape; the files stay in `modelFolder` for the next time. */
export async function benchLargeModel(
  options: PeerOptions,
  modelFolder: string | null,
): Promise<readonly Figure[]> {
  if (options.folder === null) return skipped();
  if (modelFolder === null) {
    console.log('  SKIPPED: the shape of TinyLlama-1.1B (name a folder with 2 GB free with --large-model)');
    return [];
  }
  const peer = llamaCpp(options.folder);
  mkdirSync(modelFolder, { recursive: true });
  const fileOf = (precision: Precision) => join(modelFolder, `tiny-llama-1.1b-random.${precision}.gguf`);
  if (!existsSync(fileOf('Q8_0'))) writeRandomLlama(fileOf('Q8_0'), tinyLlama);
  if (!existsSync(fileOf('Q4_0'))) await peer.quantise(fileOf('Q8_0'), fileOf('Q4_0'), 'Q4_0');
  const figures: Figure[] = [];
  for (const precision of options.precisions) {
    const goals = precision === 'Q8_0' ? largeGoals : { ...largeGoals, crowd: 1.5 };
    const label = `TinyLlama-1.1B's shape ${precision}`;
    figures.push(...(await benchModelFile(peer, fileOf(precision), label, goals, options)));
  }
  return figures;
}

function skipped(): readonly Figure[] {
  console.log('  SKIPPED: llama.cpp (name its folder with --peer-llama-cpp DIR)');
  return [];
}

async function benchModelFile(
  peer: LlamaCpp,
  model: string,
  label: string,
  goals: Goals,
  { pairCount, shapes, kind }: PeerOptions,
): Promise<Figure[]> {
  const runs = await stepRuns(model, 2, 16 * 192, undefined, kind);
  try {
    await runs.prepare(runs.fastest);
    const figures: Figure[] = [];
    for (const shape of shapesFor(goals).filter(({ id }) => shapes.includes(id))) {
      figures.push(...(await benchShape(peer, model, `${label}, ${shape.name}`, shape, runs, pairCount)));
    }
    return figures;
  } finally {
    runs.close();
  }
}

async function benchShape(
  peer: LlamaCpp,
  model: string,
  name: string,
  shape: PeerShape,
  runs: StepRuns,
  pairCount: number,
): Promise<Figure[]> {
  const theirs = async (threadCount: number, contextTokens: number): Promise<number> => {
    const { sequenceCount, tokensEach } = shape.step;
    const [promptTokens, newTokens] = shape.kind === 'decode' ? [contextTokens, NEW_TOKENS] : [tokensEach, 1];
    const rates = await peer.batched({ model, promptTokens, newTokens, sequenceCount, threadCount });
    return shape.kind === 'decode' ? rates.decodeRate : rates.prefillRate;
  };
  const block = async (rate: () => Promise<{ rate: number; foreignCpuShare: number }>): Promise<Block> => {
    const before = runs.probe();
    const measured = await rate();
    return { ...measured, probes: [before, runs.probe()] };
  };
  const ownBlock = (threadCount: number) => block(() => ownRate(runs, shape.step, threadCount));
  const peerBlock = (threadCount: number, contextTokens = PROMPT_TOKENS) =>
    block(async () => ({ rate: await theirs(threadCount, contextTokens), foreignCpuShare: 0 }));

  const best = async (of: (threadCount: number) => Promise<Block>) => {
    const [one, two] = [(await of(1)).rate, (await of(2)).rate];
    return one > two ? 1 : 2;
  };
  const ownThreads = await best(ownBlock);
  const peerThreads = await best((threadCount) => peerBlock(threadCount, TRIAL_PROMPT_TOKENS));
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
  const dropped = isEnough
    ? `${pairs.length - kept.length} of ${pairs.length} pairs dropped`
    : `all ${pairs.length} pairs, ${pairs.length - kept.length} of them disturbed`;
  const figures: Figure[] = [
    {
      figure: `${name}: ${runs.fastest} / llama.cpp`,
      goal: `>= ${shape.goal}`,
      measured: ratio.mean.toFixed(2),
      interval: `${inWords(ratio)}; ${dropped}`,
      isMet: ratio.mean >= shape.goal,
    },
    {
      figure: `${name}: tok/s here on ${ownThreads} threads, of llama.cpp on ${peerThreads}`,
      goal: '',
      measured: `${median(judged.map(({ own }) => own.rate)).toFixed(0)}, ${median(judged.map(({ other }) => other.rate)).toFixed(0)}`,
      interval: `read ${(median(bandwidths(judged)) / 1e9).toFixed(0)} GB/s, ${(median(flops(judged)) / 1e9).toFixed(0)} GFLOP/s`,
      isMet: null,
    },
  ];
  if (shape.kind === 'decode' && shape.step.sequenceCount === 1) {
    const share = readShare(
      judged.map(({ own }) => own),
      runs.bytesRead(shape.step, runs.fastest),
    );
    figures.push({
      figure: `${name}: bytes/s of the step over the read probe around it`,
      goal: shape.leastReadShare === null ? '' : `>= ${shape.leastReadShare}`,
      measured: share.mean.toFixed(3),
      interval: `${share.low.toFixed(3)} to ${share.high.toFixed(3)}, ${share.count} blocks`,
      isMet: shape.leastReadShare === null ? null : share.mean >= shape.leastReadShare,
    });
  }
  for (const one of figures) console.log(`    ${one.figure}: ${one.measured} (${one.interval})`);
  return figures;
}

function readShare(blocks: readonly Block[], bytesAStep: number): RatioInterval {
  return ratioInterval(
    blocks.map(({ rate, probes }) => {
      const rates = probes.map(({ readBytesPerSecond }) => readBytesPerSecond);
      return (rate * bytesAStep * rates.length) / rates.reduce((sum, one) => sum + one, 0);
    }),
  );
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
