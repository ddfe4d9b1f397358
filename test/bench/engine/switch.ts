/**
 * What a live switch costs on this CPU: getting a path's kernels ready beside running streams (`prepare`), the gap that the
 * streams feel at the step border, and what is lost with it: cached prefixes, and room where a pool shrinks. The worker's own
 * step loop, 16 streams with contexts of 500 tokens and more, forth and back between two paths.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fastestOfEachKind, type LinearVariantId, variantOf } from '@variator/kernels/catalogue';
import { type Envelope, type ExecutionPath, namedPaths } from '@variator/kernels/execution-path';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, spread } from '../figure.ts';
import { type InProcessWorker, inProcessWorker, plainSequence } from './in-process-worker.ts';

const SWITCHES = 10;
const STREAMS = 16;
const CONTEXT_TOKENS = 500;
/** Steps between two switches; those after the second say what a gap on this path is. */
const STEPS_BETWEEN = 10;
/** More than any stream comes to while it is watched. */
const ANSWER_TOKENS = 1500;
const PROBE_TOKENS = 129;
const PREPARATIONS = 10;
const MIB = 1024 ** 2;

interface Pair {
  readonly name: string;
  /** Where they differ from the balanced path. */
  readonly from: Partial<ExecutionPath>;
  readonly to: Partial<ExecutionPath>;
}

/** Prints each figure as it comes: on a busy machine the whole takes long. */
export async function liveSwitches(): Promise<readonly Figure[]> {
  const { path: model, label } = await benchModel();
  const { linearVariants } = await envelopeOf(model);
  const figures: Figure[] = [];
  for (const pair of pairsOf(linearVariants)) figures.push(...told(await forthAndBack(model, label, pair)));
  figures.push(...told(await shrinkingPool(model, label)));
  return figures;
}

/** The same for getting a path's kernels ready. */
export async function preparedKernels(): Promise<readonly Figure[]> {
  const { path: model, label } = await benchModel();
  const { linearVariants } = await envelopeOf(model);
  const figures: Figure[] = [];
  for (const linear of fastestOfEachKind(linearVariants)) {
    if (linear !== 'linear.reference') figures.push(...told(await preparations(model, label, linear)));
  }
  return figures;
}

async function envelopeOf(model: string): Promise<Envelope> {
  const worker = await open(model, balanced, 64 * MIB);
  await worker.close();
  return worker.envelope;
}

function told(figures: readonly Figure[]): readonly Figure[] {
  for (const { figure: name, measured, interval } of figures)
    console.log(`    ${name}: ${measured} (${interval})`);
  return figures;
}

function pairsOf(linearVariants: readonly LinearVariantId[]): Pair[] {
  const ofKind = (kind: string): LinearVariantId[] =>
    linearVariants.filter((id) => variantOf(id).kind === kind);
  const [int8, otherInt8] = ofKind('int8');
  const [bf16] = ofKind('bf16');
  const pairs: Pair[] = [
    { name: 'limits alone', from: {}, to: { tokenBudget: 64, maxRunningCount: 32 } },
    { name: 'threads, 2 and 1', from: {}, to: { threadCount: 1 } },
  ];
  if (int8 !== undefined && otherInt8 !== undefined) {
    pairs.push({
      name: `same bits, ${int8} and ${otherInt8}`,
      from: { linear: int8 },
      to: { linear: otherInt8 },
    });
  }
  if (int8 !== undefined && bf16 !== undefined) {
    pairs.push({ name: `other weights, ${int8} and ${bf16}`, from: { linear: int8 }, to: { linear: bf16 } });
  }
  for (const [one, other] of [
    ['float32', 'bf16'],
    ['float32', 'int8'],
    ['bf16', 'int8'],
  ] as const) {
    pairs.push({
      name: `KV format, ${one} and ${other}`,
      from: { attention: `attention.${one}` },
      to: { attention: `attention.${other}` },
    });
  }
  return pairs;
}

interface Crossing {
  readonly gapMs: number[];
  readonly convertMs: number[];
  readonly askedMs: number[];
  /** Of a prefix computed before the switch; and of one from before the switch there and back. */
  readonly keptShare: number[];
  readonly keptThereAndBackShare: number[];
}

async function forthAndBack(model: string, label: string, pair: Pair): Promise<Figure[]> {
  const worker = await open(model, (envelope) => ({ ...balanced(envelope), ...pair.from }), 1500 * MIB);
  try {
    const base = balanced(worker.envelope);
    const paths = [
      { ...base, ...pair.from },
      { ...base, ...pair.to },
    ] as const;
    // The probes' prompts need a place beside the streams on either path.
    const roomy = paths.map((path) => ({ ...path, maxRunningCount: Math.max(32, path.maxRunningCount) }));
    for (const path of roomy) await worker.prepare(path);
    const streams = new Streams(worker);
    await streams.start(STREAMS, CONTEXT_TOKENS, ANSWER_TOKENS);
    const crossings: [Crossing, Crossing] = [nothing(), nothing()];
    let convertMs = 0;
    worker.ears.onConverted = (ms) => {
      convertMs = ms;
    };
    for (let index = 0; index < 2 * SWITCHES; index += 1) {
      const direction = index % 2 === 0 ? 0 : 1;
      const to = roomy[1 - direction];
      if (to === undefined) break;
      const crossing = crossings[direction];
      convertMs = 0;
      crossing.askedMs.push(await worker.switchTo(to));
      const gaps = await streams.gaps(STEPS_BETWEEN);
      crossing.gapMs.push((gaps[0] ?? Number.NaN) - spread(gaps.slice(2)).median);
      crossing.convertMs.push(convertMs);
      if (index > 0) crossing.keptShare.push(await streams.cachedShareOf(index - 1));
      if (index > 1) crossing.keptThereAndBackShare.push(await streams.cachedShareOf(index - 2));
      await streams.cachedShareOf(index);
      await streams.gaps(3);
    }
    return crossings.flatMap((crossing, direction) => figuresOf(label, pair, direction, crossing));
  } finally {
    await worker.close();
  }
}

const nothing = (): Crossing => ({
  ...{ gapMs: [], convertMs: [], askedMs: [], keptShare: [], keptThereAndBackShare: [] },
});

function figuresOf(label: string, { name }: Pair, direction: number, crossing: Crossing): Figure[] {
  const where = `${label}, ${name}, ${direction === 0 ? 'forth' : 'back'}`;
  const figures = [
    figure(`${where}: gap at the border beyond the path's own`, spread(crossing.gapMs), 'ms', '', null, 1),
    figure(`${where}: from asking to the border`, spread(crossing.askedMs), 'ms', '', null, 1),
  ];
  if (crossing.convertMs.some((ms) => ms > 0)) {
    figures.push(figure(`${where}: of it converting`, spread(crossing.convertMs), 'ms', '', null, 1));
  }
  const kept = spread(crossing.keptShare.map((share) => 100 * share));
  const again = spread(crossing.keptThereAndBackShare.map((share) => 100 * share));
  figures.push({
    figure: `${where}: cached prefixes found afterwards`,
    goal: '',
    measured: `${kept.median.toFixed(0)} %`,
    interval: `of those from before there and back ${again.median.toFixed(0)} %`,
    isMet: null,
  });
  return figures;
}

/** Streams that fill an int8 cache, and a switch to float32, whose pool holds a quarter as many blocks. */
async function shrinkingPool(model: string, label: string): Promise<Figure[]> {
  const attention = (id: 'int8' | 'float32') => (envelope: Envelope) => ({
    ...namedPaths(envelope).throughput,
    attention: `attention.${id}` as const,
  });
  const worker = await open(model, attention('int8'), 256 * MIB);
  try {
    const small = attention('int8')(worker.envelope);
    const wide = attention('float32')(worker.envelope);
    const streams = new Streams(worker);
    let recomputeMs = 0;
    worker.ears.onRow = (row) => {
      recomputeMs += row.recomputeDeviceMs;
    };
    await streams.start(STREAMS, CONTEXT_TOKENS - 100, ANSWER_TOKENS);
    const preemptedCounts: number[] = [];
    const gapMs: number[] = [];
    for (let index = 0; index < PREPARATIONS; index += 1) {
      await worker.switchTo(wide);
      const gaps = await streams.gaps(STEPS_BETWEEN);
      gapMs.push((gaps[0] ?? Number.NaN) - spread(gaps.slice(2)).median);
      preemptedCounts.push(STREAMS - streams.sequencesOfStep);
      await worker.switchTo(small);
      await streams.allRun(STREAMS);
    }
    const name = `${label}, KV format, int8 and float32 with a full pool`;
    return [
      figure(`${name}: streams of ${STREAMS} that must wait`, spread(preemptedCounts), '', '', null, 0),
      {
        figure: `${name}: device time that computes them again, a switch`,
        goal: '',
        measured: `${(recomputeMs / PREPARATIONS).toFixed(0)} ms`,
        interval: `mean of ${PREPARATIONS} switches there and back`,
        isMet: null,
      },
      figure(`${name}: gap of the others beyond the path's own`, spread(gapMs), 'ms', '', null, 1),
    ];
  } finally {
    await worker.close();
  }
}

/** Packing, again, and from the mapped file; and what streams feel of the packing beside them. */
async function preparations(model: string, label: string, linear: LinearVariantId): Promise<Figure[]> {
  const packing: number[] = [];
  const again: number[] = [];
  const mapped: number[] = [];
  const slowdown: number[] = [];
  const folder = mkdtempSync(join(tmpdir(), 'variator-panels-'));
  const live = (envelope: Envelope): ExecutionPath => {
    const { linearVariants } = envelope;
    const other = linearVariants.find((id) => variantOf(id).kind !== variantOf(linear).kind);
    return { ...balanced(envelope), linear: other ?? 'linear.reference' };
  };
  try {
    for (let index = 0; index < PREPARATIONS; index += 1) {
      const worker = await open(model, live, 256 * MIB);
      const path = { ...balanced(worker.envelope), linear };
      const streams = new Streams(worker);
      await streams.start(STREAMS, 64, ANSWER_TOKENS);
      const gaps = spread(await streams.gaps(10)).median;
      const beside: number[] = [];
      const preparing = worker.prepare(path);
      let isReady = false;
      void preparing.then(() => {
        isReady = true;
      });
      while (!isReady) beside.push(...(await streams.gaps(1)));
      packing.push((await preparing).prepareMs);
      slowdown.push(spread(beside).median / gaps);
      again.push((await worker.prepare(path)).prepareMs);
      await worker.close();
      // The first of these writes the file.
      const other = await open(model, live, 64 * MIB, folder);
      const { prepareMs } = await other.prepare(path);
      if (index > 0) mapped.push(prepareMs);
      await other.close();
    }
  } finally {
    rmSync(folder, { recursive: true });
  }
  const name = `${label}, prepare ${linear}`;
  return [
    figure(`${name}: packing beside ${STREAMS} streams`, spread(packing), 'ms', '', null, 0),
    figure(`${name}: their gaps meanwhile over those before`, spread(slowdown), 'x', '', null),
    figure(`${name}: again`, spread(again), 'ms', '', null),
    figure(`${name}: from the mapped file`, spread(mapped), 'ms', '', null, 1),
  ];
}

/** Streams that decode side by side, and the times at which their steps ended. */
class Streams {
  readonly #worker: InProcessWorker;
  readonly #ended = new Map<string, (cachedTokenCount: number) => void>();
  #stepAt: number[] = [];
  /** That got a token in the last one. */
  sequencesOfStep = 0;
  #heard: () => void = () => {};
  #probeCount = 0;

  constructor(worker: InProcessWorker) {
    this.#worker = worker;
    worker.ears.onTokens = (events, at) => {
      this.#stepAt.push(at);
      this.sequencesOfStep = events.length;
      this.#heard();
    };
    worker.ears.onEnded = ({ sequenceId, cachedTokenCount }) =>
      this.#ended.get(sequenceId)?.(cachedTokenCount);
  }

  /** Resolves once all of them decode. */
  async start(count: number, promptTokens: number, answerTokens: number): Promise<void> {
    for (let index = 0; index < count; index += 1) {
      const prompt = promptOf(1000 + index, promptTokens);
      this.#worker.submit(plainSequence(`stream-${index}`, prompt, answerTokens));
    }
    await this.allRun(count);
    await this.gaps(5);
  }

  async allRun(count: number): Promise<void> {
    do await this.#step();
    while (this.sequencesOfStep < count);
  }

  /** The next `count` gaps between two steps; the first one begins with the last step that has ended. */
  async gaps(count: number): Promise<number[]> {
    const from = this.#stepAt.length - 1;
    while (this.#stepAt.length < from + 1 + count) await this.#step();
    const times = this.#stepAt.slice(from);
    return times.slice(1, count + 1).map((at, index) => at - (times[index] ?? at));
  }

  /** Share of the prompt of this number that the prefix cache holds; it does afterwards. */
  async cachedShareOf(number: number): Promise<number> {
    this.#probeCount += 1;
    const id = `probe-${this.#probeCount}`;
    const cachedTokenCount = await new Promise<number>((resolve) => {
      this.#ended.set(id, resolve);
      this.#worker.submit(plainSequence(id, promptOf(number, PROBE_TOKENS), 1));
    });
    return cachedTokenCount / (PROBE_TOKENS - 1);
  }

  #step(): Promise<void> {
    return new Promise((resolve) => {
      this.#heard = resolve;
    });
  }
}

const balanced = (envelope: Envelope): ExecutionPath => namedPaths(envelope).balanced;

const open = (
  model: string,
  path: (envelope: Envelope) => ExecutionPath,
  kvMemoryBytes: number,
  packedWeightsDir: string | null = null,
) => inProcessWorker({ model, path, kvMemoryBytes, maxModelLenTokens: 2048, packedWeightsDir });

/** Another first token for each number, so that no two share a prefix. */
const promptOf = (number: number, tokenCount: number): number[] =>
  Array.from({ length: tokenCount }, (_, place) => 300 + ((number * 977 + place * 31) % 4000));
