/**
 * A CUDA GPU as a device: the model in bf16 on it and, as paths ask, in fewer bits, the paged KV cache in what memory is left, batches through the border of
 * native-cuda.ts. Opened by worker/main.ts for `--device cuda:N` and, over the emulated device of the tests, for
 * `--device cuda-emulated:N`. Scratch blocks are caches of their own, one a format, made and prepared when first used.
 */
import {
  cudaAttentionOf,
  cudaAttentionsFor,
  cudaLinearOf,
  cudaLinearVariants,
  type KvFormat,
  kvFormatOf,
  type LinearVariantId,
  variantOf,
} from '@variator/kernels/catalogue';
import {
  cudaAttentions,
  cudaLinears,
  cudaWeightFormats,
  readCudaTiles,
} from '@variator/kernels/cuda-variants';
import type { Envelope, ExecutionPath, MachineProbe } from '@variator/kernels/execution-path';
import { KV_BLOCK_SIZE, kvPlan, SCRATCH_BLOCK_COUNT } from '@variator/kernels/kv-plan';
import type { LoadedModel } from '@variator/kernels/model';
import { activeMatrices } from '@variator/kernels/model/active-weights';
import { ModelError } from '@variator/kernels/model/model-error';
import { cachedShapeOf, type ModelShape } from '@variator/kernels/model/model-shape';
import { NativeError } from '@variator/kernels/native';
import {
  type CudaDeviceInfo,
  type CudaKvCacheHandle,
  type CudaLimits,
  type CudaPath,
  cudaLibraryFiles,
  loadCuda,
} from '@variator/kernels/native-cuda';
import { cudaMemoryPlan } from './cuda-memory.ts';
import type { Device } from './device.ts';
import { gpuFigures } from './gpu-datasheet.ts';
import { drawnTokens, entryLogprobs, stepBatch } from './step-input.ts';
import { joinParts, type PartResult, stepParts } from './step-parts.ts';

export interface CudaDeviceOptions {
  readonly kind: keyof typeof cudaLibraryFiles;
  readonly ordinal: number;
  /** Most that the KV cache may take; Infinity: what is left of the GPU's memory. */
  readonly kvMemoryBytes: number;
  readonly maxModelLenTokens: number | null;
  /** Another library than the one that was built; for tests. */
  readonly libraryFile?: string;
}

const MAX_TOKEN_BUDGET = 8192;
const MAX_RUNNING_COUNT = 256;
const MAX_DRAFT_TOKEN_COUNT = 16;
/** For logits of a step; one with more rows runs in parts. */
const LOGITS_BYTES = 512 * 1024 ** 2;

/**
 * @throws ModelError for a model that the kernels cannot run, KvPlanError where the memory left cannot hold a sequence,
 * NativeError without library, driver or GPU
 */
export async function cudaDevice(loaded: LoadedModel, options: CudaDeviceOptions): Promise<Device> {
  const { shape, tensors } = loaded;
  checkShape(loaded.modelId, shape);
  const native = loadCuda(options.libraryFile ?? cudaLibraryFiles[options.kind], options.ordinal);
  const info = native.device();
  const features = featuresOf(info);
  const known = cudaLinearVariants.filter((id) => needsOf(id, features));
  if (known.length === 0) {
    throw new NativeError(
      `The CUDA kernels are compiled for compute capability 9.0 (H100, H200, GH200); ${info.name} has ${info.computeCapability / 10}.`,
    );
  }
  const wantedTokens = Math.min(shape.maxPositionCount, options.maxModelLenTokens ?? shape.maxPositionCount);
  const limits: CudaLimits = {
    mostTokens: MAX_TOKEN_BUDGET,
    mostSequences: MAX_RUNNING_COUNT,
    mostHeadRows: Math.min(
      MAX_TOKEN_BUDGET,
      Math.max(MAX_RUNNING_COUNT, Math.floor(LOGITS_BYTES / (4 * shape.vocabularySize))),
    ),
    mostBlocksPerSequence: Math.ceil(wantedTokens / KV_BLOCK_SIZE),
  };
  const { model, weightBytes } = await native.openModel(shape, tensors, limits);
  const weights = activeMatrices(shape, tensors);
  const memory = cudaMemoryPlan(known, weights, tensors, limits.mostTokens, native.device().freeBytes);
  const { linearVariants } = memory;
  const plan = kvPlan(shape, {
    kvMemoryBytes: Math.min(options.kvMemoryBytes, memory.kvMemoryBytes),
    maxModelLenTokens: options.maxModelLenTokens,
    maxRunningCount: MAX_RUNNING_COUNT,
    elementBytes: 2,
  });
  const { blockCount: kvBlockCount, kvBytesPerToken, maxModelLenTokens } = plan;
  const { kvCache } = await native.createKvCache(model, kvBlockCount, KV_BLOCK_SIZE, 'bf16');
  const scratchCaches = new Map<KvFormat, CudaKvCacheHandle>();
  /** Ready for the path. */
  const scratchCache = async (path: ExecutionPath): Promise<CudaKvCacheHandle> => {
    const format = kvFormatOf(path.attention);
    let scratch = scratchCaches.get(format);
    if (scratch === undefined) {
      scratch = (await native.createKvCache(model, SCRATCH_BLOCK_COUNT, KV_BLOCK_SIZE, format)).kvCache;
      scratchCaches.set(format, scratch);
    }
    await native.prepare(model, scratch, cudaPath(path));
    return scratch;
  };
  const activeParameterCount = weights.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const cached = cachedShapeOf(shape);
  const name = info.isEmulated && !info.name.includes('emulated') ? `${info.name} (emulated)` : info.name;

  const attentionVariants = cudaAttentionsFor(shape.headSize, shape.headCount / shape.kvHeadCount);
  const envelope: Envelope = {
    deviceKind: info.isEmulated ? 'cuda-emulated' : `cuda-sm${info.computeCapability}`,
    deviceName: name,
    modelId: loaded.modelId,
    modelHash: loaded.modelHash,
    linearVariants,
    attentionVariants,
    threadCount: 1,
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
    weightBytes: memory.weightBytes,
    kvBytesPerToken,
    probe: probeOf(info, name, features),
  };
  console.log(
    `${name}: ${mebibytes(weightBytes)} of weights, ${mebibytes(memory.codeBytes)} kept for them in fewer bits, ${kvBlockCount} KV blocks of ${KV_BLOCK_SIZE} tokens`,
  );

  return {
    envelope,
    scratchBlockIds: Array.from({ length: SCRATCH_BLOCK_COUNT }, (_, index) => index),
    prepare: (path) => native.prepare(model, kvCache, cudaPath(path)),
    keepKvFor: (path, blockIds) =>
      native.convertKvCache(model, kvCache, kvFormatOf(path.attention), Int32Array.from(blockIds)),
    async run(path, entries, blocks) {
      const cache = blocks === 'scratch' ? await scratchCache(path) : kvCache;
      const parts = stepParts(entries, limits.mostHeadRows);
      const results: PartResult[] = [];
      let deviceMs = 0;
      for (const part of parts) {
        const output = await native.runStep(model, cache, cudaPath(path), stepBatch(part.entries));
        deviceMs += output.deviceMs;
        const drawn = drawnTokens(part.entries, output.sampledTokenIds);
        results.push({ ...drawn, logprobs: entryLogprobs(part.entries, output) });
      }
      const { logprobs, ...drawn } = joinParts(entries.length, parts, results);
      // Other processes take processors, not multiprocessors.
      return { ...drawn, deviceMs, foreignCpuShare: 0, ...(logprobs === null ? {} : { logprobs }) };
    },
    // Nothing is measured on a GPU yet.
    measureAside: async () => false,
    async telemetry() {
      return { ...(await native.telemetry()), memoryBytes: info.memoryBytes };
    },
    close() {
      for (const each of [kvCache, ...scratchCaches.values()]) native.closeKvCache(each);
      native.closeModel(model);
    },
  };
}

function checkShape(modelId: string, { experts, latent }: ModelShape): void {
  const fault = experts !== null ? 'has experts' : latent !== null ? 'has latent attention' : null;
  if (fault === null) return;
  throw new ModelError(
    modelId,
    `${fault}, and the CUDA kernels run dense Llama, Mistral and Qwen models; serve it with --device cpu.`,
  );
}

/** As `MachineProbe.features` has them. */
export const featuresOf = ({ computeCapability, isEmulated, hasGemmLibrary }: CudaDeviceInfo): string[] => [
  `sm${computeCapability}`,
  ...(hasGemmLibrary ? ['cublaslt'] : []),
  ...(isEmulated ? ['emulated'] : []),
];

const needsOf = (id: LinearVariantId, features: readonly string[]): boolean =>
  variantOf(id).needs.every((feature) => features.includes(feature));

/** Nothing is measured: what a datasheet says, or 0. */
function probeOf(info: CudaDeviceInfo, name: string, features: readonly string[]): MachineProbe {
  const figures = info.isEmulated ? null : gpuFigures(info.name);
  return {
    cpuModel: figures === null ? `${name}: figures unknown` : `${name}: figures of its datasheet`,
    coreCount: info.multiprocessorCount,
    features,
    readBytesPerSecond: figures?.readBytesPerSecond ?? 0,
    float32FlopsPerSecond: figures?.bfloat16FlopsPerSecond ?? 0,
    int8OpsPerSecond: 0,
  };
}

/** @throws Error for a path that `pathFaults` refuses */
export function cudaPath({ linear, attention, splitTokens, tiles }: ExecutionPath): CudaPath {
  const settings = readCudaTiles(tiles);
  if (typeof settings === 'string') throw new Error(settings);
  const { number, weights } = cudaLinears[cudaLinearOf(linear)];
  const { number: kvFormat, decode } = cudaAttentions[cudaAttentionOf(attention)];
  return {
    linear: number,
    weights: cudaWeightFormats[weights].number,
    kvFormat,
    splitTokens,
    mmaTile: settings['mma.tile'] ?? 0,
    gemvRowsPerWarp: settings['gemv.rowsPerWarp'] ?? 1,
    gemvLoads: settings['gemv.loads'] ?? 4,
    usesGraphs: settings['graphs.use'] === 1,
    decode,
  };
}

const mebibytes = (bytes: number): string => `${Math.round(bytes / 1024 ** 2)} MiB`;
