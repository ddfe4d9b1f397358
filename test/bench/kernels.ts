/** Fast path against reference path: the same steps on the same model, one after the other, A B A B. */
import { availableParallelism } from 'node:os';
import { type LinearVariantId, linearVariantsFor } from '@variator/kernels/catalogue';
import { loadModel } from '@variator/kernels/model';
import { loadNative, type StepInput } from '@variator/kernels/native';
import { benchModel } from './bench-model.ts';
import { type Figure, figure, pairedRatio, spread } from './figure.ts';

const PAIRS = 7;
const BLOCK_SIZE = 16;

interface Shape {
  readonly name: string;
  readonly sequenceCount: number;
  readonly tokensEach: number;
  readonly contextLength: number;
  readonly goal: number;
}

const shapes: readonly Shape[] = [
  { name: 'decode, batch 1, context 128', sequenceCount: 1, tokensEach: 1, contextLength: 128, goal: 1.5 },
  { name: 'decode, batch 16, context 128', sequenceCount: 16, tokensEach: 1, contextLength: 128, goal: 3 },
  { name: 'prefill of 128 tokens', sequenceCount: 1, tokensEach: 128, contextLength: 0, goal: 4 },
];

export async function benchKernels(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const model = await loadModel(path);
  const native = loadNative();
  const threadCount = Math.min(2, availableParallelism());
  const probe = native.probeMachine(threadCount);
  const handle = native.openModel(model.shape, model.tensors, threadCount);
  const blocksEach = 20;
  const cache = native.createKvCache(handle, 16 * blocksEach, BLOCK_SIZE, 'float32');
  const fast =
    linearVariantsFor(
      probe.features,
      new Set(model.tensors.layers.flatMap(({ q, o }) => [q.dtype, o.dtype])),
    )[0] ?? 'linear.reference';
  await native.prepareLinear(handle, fast);
  const figures: Figure[] = [];
  for (const shape of shapes) {
    const times = { fast: [] as number[], reference: [] as number[] };
    const run = async (linear: LinearVariantId) =>
      (await native.runStep(handle, cache, stepOf(shape, linear))).deviceMs;
    await run(fast);
    for (let pair = 0; pair < PAIRS; pair += 1) {
      times.fast.push(await run(fast));
      times.reference.push(await run('linear.reference'));
    }
    const tokens = shape.sequenceCount * shape.tokensEach;
    figures.push(
      figure(
        `${label}, ${shape.name}: reference ms / ${fast} ms`,
        pairedRatio(times.reference, times.fast),
        '',
        `>= ${shape.goal}`,
        (ratio) => ratio >= shape.goal,
      ),
      figure(
        `${label}, ${shape.name}: ${fast}`,
        spread(times.fast.map((ms) => (1000 * tokens) / ms)),
        'tok/s',
        '',
        null,
        0,
      ),
    );
  }
  native.closeKvCache(cache);
  native.closeModel(handle);
  return figures;

  function stepOf({ sequenceCount, tokensEach, contextLength }: Shape, linear: LinearVariantId): StepInput {
    const total = sequenceCount * tokensEach;
    return {
      linear,
      attention: 'attention.float32',
      threadCount,
      tokenIds: Int32Array.from(
        { length: total },
        (_, index) => (7 * index + 11) % model.shape.vocabularySize,
      ),
      tokenStarts: Int32Array.from({ length: sequenceCount + 1 }, (_, index) => index * tokensEach),
      contextLengths: new Int32Array(sequenceCount).fill(contextLength),
      blockTables: Int32Array.from({ length: sequenceCount * blocksEach }, (_, index) => index),
      blockTableStride: blocksEach,
      isSampled: new Uint8Array(sequenceCount).fill(1),
      draftCounts: new Int32Array(sequenceCount),
      temperatures: new Float32Array(sequenceCount),
      topPs: new Float32Array(sequenceCount).fill(1),
      topKs: new Int32Array(sequenceCount),
      minPs: new Float32Array(sequenceCount),
      seeds: new Uint32Array(2 * sequenceCount),
      rules: null,
      scoring: null,
      isLogitsWanted: false,
    };
  }
}
