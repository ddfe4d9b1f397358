/**
 * The CPU as a device: maps the model, makes the paged KV cache, runs batches through the native border (step-input.ts).
 * Started by worker/main.ts. Scratch blocks are caches of their own, one a format, made when first used.
 */
import { join } from 'node:path';
import {
  attentionVariants,
  type IsaLimit,
  type KvFormat,
  kvFormatOf,
  type LinearVariantId,
  linearVariantsFor,
  packingOf,
  variantOf,
  weightBytes,
} from '@variator/kernels/catalogue';
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import {
  KV_BLOCK_SIZE,
  type KvPlanOptions,
  kvPlan,
  MAX_RUNNING_COUNT,
  SCRATCH_BLOCK_COUNT,
} from '@variator/kernels/kv-plan';
import { dispatchTable, type LinearTunings, tuningsOfTiles } from '@variator/kernels/linear-dispatch';
import type { LoadedModel } from '@variator/kernels/model';
import { activeMatrices } from '@variator/kernels/model/active-weights';
import { cachedShapeOf, type TensorSource } from '@variator/kernels/model/model-shape';
import { type KvCacheHandle, loadNative } from '@variator/kernels/native';
import type { Device } from './device.ts';
import { keptTunings, linearShapesOf, measureTunings, type TuningsOf } from './measured-tunings.ts';
import { packedWeightsFile, tidyPackedWeights } from './packed-weights.ts';
import { drawnTokens, entryLogprobs, stepInput } from './step-input.ts';

export interface CpuDeviceOptions extends KvPlanOptions {
  readonly threadCount: number;
  readonly isa: IsaLimit;
  /** Where packed weights are kept between starts; null: nowhere. */
  readonly packedWeightsDir: string | null;
}

const MAX_TOKEN_BUDGET = 2048;
/** More guesses in a row are hardly ever right. */
const MAX_DRAFT_TOKEN_COUNT = 16;
/** Of dispatch tables kept at hand. */
const MOST_TABLES = 64;

/** @throws KvPlanError when the KV memory cannot hold one sequence; NativeError from below */
export function cpuDevice(model: LoadedModel, options: CpuDeviceOptions): Device {
  const { shape, tensors } = model;
  const cached = cachedShapeOf(shape);
  const native = loadNative();
  native.limitIsa(options.isa);
  const probe = native.probeMachine(options.threadCount);
  const { blockCount: kvBlockCount, kvBytesPerToken, maxModelLenTokens } = kvPlan(shape, options);
  const weights = activeMatrices(shape, tensors);
  const linearVariants = linearVariantsFor(
    probe.features,
    new Set(weights.flatMap((tensor) => (tensor === tensors.head ? [] : [tensor.dtype]))),
  );
  const handle = native.openModel(shape, tensors, options.threadCount);
  const kvCache = native.createKvCache(handle, kvBlockCount, KV_BLOCK_SIZE, 'float32');
  let kvFormat: KvFormat = 'float32';
  const scratchCaches = new Map<KvFormat, KvCacheHandle>();
  const scratchCache = (format: KvFormat): KvCacheHandle => {
    const known = scratchCaches.get(format);
    if (known !== undefined) return known;
    const made = native.createKvCache(handle, SCRATCH_BLOCK_COUNT, KV_BLOCK_SIZE, format);
    scratchCaches.set(format, made);
    return made;
  };
  const activeParameterCount = weights.reduce((sum, { rows, columns }) => sum + rows * columns, 0);

  const envelope: Envelope = {
    // By the instructions alone: what the weights are held as is in kernelsId.
    deviceKind: `cpu-${linearVariants[0]?.split('-').at(-1) ?? 'reference'}`,
    deviceName: probe.cpuModel,
    modelId: model.modelId,
    modelHash: model.modelHash,
    linearVariants,
    attentionVariants,
    threadCount: options.threadCount,
    kvBlockCount,
    kvBlockCounts: Object.fromEntries(
      attentionVariants.map((id) => [id, native.kvBlockCount(kvCache, kvFormatOf(id))]),
    ),
    kvBlockSize: KV_BLOCK_SIZE,
    maxModelLenTokens,
    maxTokenBudget: MAX_TOKEN_BUDGET,
    maxRunningCount: MAX_RUNNING_COUNT,
    maxDraftTokenCount: MAX_DRAFT_TOKEN_COUNT,
    vocabularySize: shape.vocabularySize,
    layerCount: shape.layerCount,
    headCount: shape.headCount,
    headSize: Math.ceil((cached.keySize + cached.valueSize) / 2),
    activeParameterCount,
    weightBytes: Object.fromEntries(
      linearVariants.map((id) => {
        const bytesOf = (tensor: TensorSource) =>
          weightBytes(id, tensor, tensor === tensors.head ? 'head' : 'layer');
        return [id, weights.reduce((sum, tensor) => sum + bytesOf(tensor), 0)];
      }),
    ),
    kvBytesPerToken,
    probe,
  };

  const shapes = linearShapesOf(native, handle);
  /** By linear variant, once it is prepared. */
  const measured = new Map<LinearVariantId, LinearTunings>();
  const tables = new Map<string, Int32Array>();
  let isServing = false;

  /** Measuring takes the device for a moment: while it serves, what was kept before or else the prior must do. */
  async function tune(linear: LinearVariantId, folder: string | null): Promise<void> {
    if (measured.has(linear)) return;
    const { threadCount } = options;
    const name = `${model.modelHash}-${linear}-${threadCount}.tunings`;
    const file = folder === null ? null : join(folder, name);
    const of: TuningsOf = {
      native,
      handle,
      linear,
      threadCount,
      file,
      key: `${model.modelHash} ${probe.cpuModel}`,
    };
    const tunings = keptTunings(of) ?? (isServing ? null : await measureTunings(of));
    if (tunings !== null) measured.set(linear, tunings);
    tables.clear();
  }

  function tableOf({ linear, tiles }: ExecutionPath): Int32Array | null {
    if (variantOf(linear).kind === 'float32') return null;
    const key = `${linear} ${tiles}`;
    let table = tables.get(key);
    if (table === undefined) {
      if (tables.size >= MOST_TABLES) tables.clear();
      table = dispatchTable(tuningsOfTiles(tiles, shapes, measured.get(linear) ?? null));
      tables.set(key, table);
    }
    return table;
  }

  return {
    envelope,
    scratchBlockIds: Array.from({ length: SCRATCH_BLOCK_COUNT }, (_, index) => index),
    async prepare(path) {
      const folder = options.packedWeightsDir;
      const { kind } = variantOf(path.linear);
      const file =
        folder === null || kind === 'float32'
          ? null
          : packedWeightsFile(folder, model.modelHash, packingOf(kind));
      const { prepareMs } = await native.prepareLinear(handle, path.linear, file, model.modelHash);
      if (folder !== null && file !== null) tidyPackedWeights(folder, file, Date.now());
      if (kind === 'float32') return { prepareMs };
      const start = performance.now();
      await tune(path.linear, folder !== null && file !== null ? folder : null);
      return { prepareMs: prepareMs + performance.now() - start };
    },
    async keepKvFor(path, blockIds) {
      const wanted = kvFormatOf(path.attention);
      if (wanted === kvFormat) return { convertMs: 0 };
      const { convertMs } = await native.convertKvCache(handle, kvCache, wanted, Int32Array.from(blockIds));
      kvFormat = wanted;
      return { convertMs };
    },
    async run(path, entries, blocks) {
      isServing = true;
      const cache = blocks === 'scratch' ? scratchCache(kvFormatOf(path.attention)) : kvCache;
      const output = await native.runStep(handle, cache, stepInput(path, entries, tableOf(path)));
      const { deviceMs, foreignCpuShare } = output;
      const drawn = drawnTokens(entries, output.sampledTokenIds);
      const logprobs = entryLogprobs(entries, output);
      return {
        ...drawn,
        deviceMs,
        foreignCpuShare,
        ...(logprobs === null ? {} : { logprobs }),
      };
    },
    close() {
      for (const cache of [kvCache, ...scratchCaches.values()]) native.closeKvCache(cache);
      native.closeModel(handle);
    },
  };
}
