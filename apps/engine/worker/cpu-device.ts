/**
 * The CPU as a device: maps the model, makes the paged KV cache, runs batches through the native border (step-input.ts).
 * Started by worker/main.ts. Scratch blocks are caches of their own, one a format, made when first used.
 */
import { join } from 'node:path';
import {
  type AttentionTunings,
  attentionTable,
  attentionTuningsOfTiles,
} from '@variator/kernels/attention-dispatch';
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
import { type Envelope, type ExecutionPath, kvBytesPerTokenOf } from '@variator/kernels/execution-path';
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
import { keptAttentionTunings, measureAttention } from './measured-attention.ts';
import { keptTunings, linearShapesOf, measureTunings, type TuningsOf } from './measured-tunings.ts';
import { type Measuring, type MeasuringLimit, measureNow } from './measuring.ts';
import { packedWeightsFile, tidyPackedWeights } from './packed-weights.ts';
import { drawnTokens, entryLogprobs, type StepTables, stepInput } from './step-input.ts';

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
/** Of all that is measured for a path. */
const MEASURING_LIMIT_MS = 2000;
/** While the worker serves a request may come at any time. */
const MOST_CALL_ASIDE_MS = 100;
/** Of it, attention's part; linear layers, of which there is more to choose, have what is left. */
const ATTENTION_LIMIT_MS = 600;

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
  /** By linear variant, and by attention variant and splits, once they are prepared. */
  const measured = new Map<LinearVariantId, LinearTunings>();
  const measuredAttention = new Map<string, AttentionTunings>();
  const tables = new Map<string, StepTables>();
  let isServing = false;
  const attentionName = ({ attention, splitTokens }: ExecutionPath) => `${attention}-${splitTokens}`;

  /** What came while it served, first come, first measured; by what it is, so that none is there twice. */
  const unmeasured = new Map<string, Measuring<void>>();

  /**
   * Measuring takes the device: while it serves, what was kept before or else the prior must do until there is time.
   * @returns milliseconds that went by
   */
  async function tune(path: ExecutionPath): Promise<number> {
    const start = performance.now();
    if (path.attention !== 'attention.reference') await tuneAttention(path);
    if (variantOf(path.linear).kind !== 'float32') {
      const spentMs = isServing ? ATTENTION_LIMIT_MS : performance.now() - start;
      await tuneLinear(path.linear, MEASURING_LIMIT_MS - spentMs);
    }
    tables.clear();
    return performance.now() - start;
  }

  const placeOf = (name: string) => ({
    file:
      options.packedWeightsDir === null
        ? null
        : join(options.packedWeightsDir, `${model.modelHash}-${name}-${options.threadCount}.tunings`),
    // The linear variant names its instructions, the attention variant does not.
    key: `${model.modelHash} ${probe.cpuModel} ${options.isa}`,
  });

  async function tuneLinear(linear: LinearVariantId, limitMs: number): Promise<void> {
    if (measured.has(linear)) return;
    const { threadCount } = options;
    const of: TuningsOf = { native, handle, linear, threadCount, ...placeOf(linear) };
    const use = (tunings: LinearTunings) => measured.set(linear, tunings);
    await choose(linear, keptTunings(of), use, limitMs, (limit) => measureTunings(of, limit));
  }

  /** What was kept is used at once; else it is measured, now or in time. */
  async function choose<Tunings>(
    name: string,
    kept: Tunings | null,
    use: (tunings: Tunings) => void,
    limitMs: number,
    measure: (limit: MeasuringLimit) => Measuring<Tunings>,
  ): Promise<void> {
    if (kept !== null) return void use(kept);
    if (!isServing) return void use(await measureNow(measure({ limitMs, mostCallMs: limitMs })));
    if (unmeasured.has(name)) return;
    async function* later(): Measuring<void> {
      use(yield* measure({ limitMs, mostCallMs: MOST_CALL_ASIDE_MS }));
      // The next step has the new ones.
      tables.clear();
    }
    unmeasured.set(name, later());
  }

  async function tuneAttention(path: ExecutionPath): Promise<void> {
    const name = attentionName(path);
    if (measuredAttention.has(name)) return;
    const { attention, splitTokens } = path;
    const of = {
      native,
      handle,
      attention,
      splitTokens,
      threadCount: options.threadCount,
      headsPerKvHead: shape.headCount / cached.headCount,
      kvBytes: kvBytesPerTokenOf(envelope, path) / shape.layerCount,
      maxModelLenTokens,
      ...placeOf(name),
    };
    const use = (tunings: AttentionTunings) => measuredAttention.set(name, tunings);
    await choose(name, keptAttentionTunings(of), use, ATTENTION_LIMIT_MS, (limit) =>
      measureAttention(of, limit),
    );
  }

  function tablesOf(path: ExecutionPath): StepTables {
    const { linear, attention, tiles } = path;
    const key = `${linear} ${attentionName(path)} ${tiles}`;
    const known = tables.get(key);
    if (known !== undefined) return known;
    if (tables.size >= MOST_TABLES) tables.clear();
    const made: StepTables = {
      linear:
        variantOf(linear).kind === 'float32'
          ? null
          : dispatchTable(tuningsOfTiles(tiles, shapes, measured.get(linear) ?? null)),
      attention:
        attention === 'attention.reference'
          ? null
          : attentionTable(
              attentionTuningsOfTiles(tiles, attention, measuredAttention.get(attentionName(path)) ?? null),
            ),
    };
    tables.set(key, made);
    return made;
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
      return { prepareMs: prepareMs + (await tune(path)) };
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
      const output = await native.runStep(handle, cache, stepInput(path, entries, tablesOf(path)));
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
    async measureAside() {
      const [next] = unmeasured;
      if (next === undefined) return false;
      const [name, measuring] = next;
      let isDone: boolean | undefined = true;
      try {
        isDone = (await measuring.next()).done;
      } finally {
        if (isDone) unmeasured.delete(name);
      }
      return true;
    },
    close() {
      for (const cache of [kvCache, ...scratchCaches.values()]) native.closeKvCache(cache);
      native.closeModel(handle);
    },
  };
}
