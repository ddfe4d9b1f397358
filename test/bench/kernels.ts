/**
 * `npm run bench -- kernels [PART...] [--peer-llama-cpp DIR] [--precision Q8_0|Q4_0] [--shape ID] [--pairs N]
 * [--kind KIND] [--large-model FOLDER]`: the path a worker begins with against the reference path; its steps, or those of
 * another kind of linear variant, against llama.cpp's where that folder is given (a model of 1.1B is written into FOLDER
 * once); and how often each variant agrees with the reference.
 */
import { parseArgs } from 'node:util';
import type { LinearVariantId } from '@variator/kernels/catalogue';
import { ConfigError } from '../../apps/engine/config/config-error.ts';
import { benchModel } from './bench-model.ts';
import { type Figure, figure, pairedRatio, spread } from './figure.ts';
import { type PeerOptions, shapeIds } from './kernels/peer.ts';
import { type StepShape, stepRuns } from './kernels/step-runs.ts';
import { precisionsOf } from './precisions.ts';
import { type Parts, runParts } from './run-parts.ts';

const PAIRS = 7;
const THREADS = 2;

const shapes: readonly { name: string; step: StepShape; goal: number }[] = [
  {
    name: 'decode, batch 1, context 128',
    step: { sequenceCount: 1, tokensEach: 1, contextLength: 128 },
    goal: 1.5,
  },
  {
    name: 'decode, batch 16, context 128',
    step: { sequenceCount: 16, tokensEach: 1, contextLength: 128 },
    goal: 3,
  },
  {
    name: 'prefill of 128 tokens',
    step: { sequenceCount: 1, tokensEach: 128, contextLength: 0 },
    goal: 4,
  },
];

/** @throws ConfigError for an unknown flag or part */
export async function benchKernels(argv: readonly string[]): Promise<readonly Figure[]> {
  const { names, flags } = readArguments(argv);
  const peer = flags['peer-llama-cpp'] ?? null;
  const options: PeerOptions = {
    folder: peer,
    pairCount: Number(flags.pairs ?? 6),
    precisions: precisionsOf(flags.precision),
    shapes: shapesOf(flags.shape),
    kind: flags.kind ?? null,
  };
  const parts: Parts = {
    reference: async () => benchAgainstReference,
    steps: async () => {
      const { benchSmallModel } = await import('./kernels/peer.ts');
      return () => benchSmallModel(options);
    },
    'steps-1.1b': async () => {
      const { benchLargeModel } = await import('./kernels/peer.ts');
      return () => benchLargeModel(options, flags['large-model'] ?? null);
    },
    agreement: async () => {
      const { agreement } = await import('./kernels/agreement.ts');
      return () => agreement(peer, options.precisions);
    },
  };
  return runParts('kernels', parts, names);
}

function readArguments(argv: readonly string[]) {
  const flag = { type: 'string' } as const;
  try {
    const options = {
      'peer-llama-cpp': flag,
      pairs: flag,
      precision: flag,
      shape: flag,
      kind: flag,
      'large-model': flag,
    };
    const { positionals, values } = parseArgs({ args: [...argv], options, allowPositionals: true });
    return { names: positionals, flags: values };
  } catch (error) {
    throw new ConfigError(error instanceof Error ? error.message : String(error));
  }
}

function shapesOf(flag: string | undefined): PeerOptions['shapes'] {
  const chosen = shapeIds.filter((one) => flag === undefined || flag === one);
  if (chosen.length === 0) throw new ConfigError(`--shape is one of ${shapeIds.join(', ')}.`);
  return chosen;
}

async function benchAgainstReference(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const runs = await stepRuns(path, THREADS, 16 * 160);
  const { fastest } = runs;
  await runs.prepare(fastest);
  const figures: Figure[] = [];
  for (const { name, step, goal } of shapes) {
    const times = { fastest: [] as number[], reference: [] as number[] };
    const run = async (linear: LinearVariantId) => (await runs.run(step, linear, THREADS)).deviceMs;
    await run(fastest);
    for (let pair = 0; pair < PAIRS; pair += 1) {
      times.fastest.push(await run(fastest));
      times.reference.push(await run('linear.reference'));
    }
    const tokens = step.sequenceCount * step.tokensEach;
    figures.push(
      figure(
        `${label}, ${name}: reference ms / ${fastest} ms`,
        pairedRatio(times.reference, times.fastest),
        '',
        `>= ${goal}`,
        (ratio) => ratio >= goal,
      ),
      figure(
        `${label}, ${name}: ${fastest}`,
        spread(times.fastest.map((ms) => (1000 * tokens) / ms)),
        'tok/s',
        '',
        null,
        0,
      ),
    );
  }
  runs.close();
  return figures;
}
