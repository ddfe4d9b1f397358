/**
 * Steps of one shape on one model through the native border, for the benches of the kernels; walked as a worker has them
 * walked that measured its tunings at load.
 */
import {
  type AttentionVariantId,
  attentionVariants,
  kvFormatOf,
  type LinearVariantId,
  linearVariantsFor,
  splitTokensRange,
  variantOf,
  weightBytes,
} from '@variator/kernels/catalogue';
import { dispatchTable } from '@variator/kernels/linear-dispatch';
import { loadModel } from '@variator/kernels/model';
import { activeMatrices } from '@variator/kernels/model/active-weights';
import { cachedShapeOf } from '@variator/kernels/model/model-shape';
import { loadNative, type StepInput } from '@variator/kernels/native';
import { measureTunings } from '../../../apps/engine/worker/measured-tunings.ts';
import { measureNow } from '../../../apps/engine/worker/measuring.ts';

const BLOCK_SIZE = 16;

export interface StepShape {
  readonly sequenceCount: number;
  readonly tokensEach: number;
  readonly contextLength: number;
}

export interface StepRuns {
  readonly fastest: LinearVariantId;
  readonly vocabularySize: number;
  /** Of weights and of keys and values, by one step of a dense model. */
  bytesRead(shape: StepShape, linear: LinearVariantId): number;
  /** Bytes a second read and float32 operations a second, of all threads, in this moment. */
  probe(): { readBytesPerSecond: number; float32FlopsPerSecond: number };
  prepare(linear: LinearVariantId): Promise<{ prepareMs: number; packedBytes: number }>;
  /** Without measuring tunings; the panels mapped from the file where it holds them, and kept in it where it does not. */
  prepareUntuned(linear: LinearVariantId, cacheFile: string | null): Promise<{ isFromCache: boolean }>;
  run(
    shape: StepShape,
    linear: LinearVariantId,
    threadCount: number,
  ): Promise<{ deviceMs: number; foreignCpuShare: number }>;
  close(): void;
}

/**
 * `mostTokens`: of all sequences of the largest shape together, their contexts included. `kind`: of the linear variants
 * (catalogue.ts), null for the one that a worker begins with.
 * @throws Error where this machine has no variant of the kind
 */
export async function stepRuns(
  path: string,
  threadCount: number,
  mostTokens: number,
  attention: AttentionVariantId = attentionVariants[0] ?? 'attention.reference',
  kind: string | null = null,
): Promise<StepRuns> {
  const model = await loadModel(path);
  const native = loadNative();
  const handle = native.openModel(model.shape, model.tensors, threadCount);
  const tables = new Map<LinearVariantId, Int32Array>();
  const blockCount = Math.ceil(mostTokens / BLOCK_SIZE) + 64;
  const cache = native.createKvCache(handle, blockCount, BLOCK_SIZE, kvFormatOf(attention));
  const dtypes = new Set(model.tensors.layers.map(({ o }) => o.dtype));
  const linears = linearVariantsFor(native.probeMachine(1).features, dtypes);
  const fastest = linears.find((id) => kind === null || variantOf(id).kind === kind);
  if (fastest === undefined) {
    const kinds = [...new Set(linears.map((id) => variantOf(id).kind))];
    throw new Error(`There is no linear variant of the kind ${kind}; there are ${kinds.join(', ')}.`);
  }
  return {
    fastest,
    vocabularySize: model.shape.vocabularySize,
    bytesRead({ sequenceCount, contextLength }, linear) {
      const { shape, tensors } = model;
      const weights = activeMatrices(shape, tensors).reduce(
        (sum, tensor) => sum + weightBytes(linear, tensor, tensor === tensors.head ? 'head' : 'layer'),
        0,
      );
      const { headCount, keySize, valueSize } = cachedShapeOf(shape);
      const elementBytes = { float32: 4, bf16: 2, int8: 1, fp8: 1 }[kvFormatOf(attention)];
      const kvBytes = elementBytes * shape.layerCount * headCount * (keySize + valueSize);
      return weights + sequenceCount * contextLength * kvBytes;
    },
    probe: () => native.probeMachine(threadCount),
    async prepare(linear) {
      const prepared = await native.prepareLinear(handle, linear, null, null);
      if (linear !== 'linear.reference') {
        const of = { native, handle, linear, threadCount, file: null, key: '' };
        const tunings = await measureNow(measureTunings(of, { limitMs: 2000, mostCallMs: 2000 }));
        tables.set(linear, dispatchTable(tunings));
      }
      return prepared;
    },
    prepareUntuned: (linear, cacheFile) =>
      native.prepareLinear(handle, linear, cacheFile, cacheFile === null ? null : model.modelHash),
    run: (shape, linear, threads) => native.runStep(handle, cache, stepOf(shape, linear, threads)),
    close() {
      native.closeKvCache(cache);
      native.closeModel(handle);
    },
  };

  function stepOf(shape: StepShape, linear: LinearVariantId, threads: number): StepInput {
    const { sequenceCount, tokensEach, contextLength } = shape;
    const blocksEach = Math.ceil((contextLength + tokensEach) / BLOCK_SIZE);
    const tokenCount = sequenceCount * tokensEach;
    return {
      linear,
      tunings: tables.get(linear) ?? null,
      attention,
      attentionTunings: null,
      splitTokens: splitTokensRange.usual,
      threadCount: threads,
      tokenIds: Int32Array.from(
        { length: tokenCount },
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
