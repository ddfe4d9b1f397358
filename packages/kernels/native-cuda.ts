/**
 * The only file that loads the CUDA library, through the addon; every function is declared here in the order of
 * native/cuda_addon.cc. Called by the worker process alone. Nothing of it is loaded, and no CUDA is needed, before
 * `loadCuda`. One device a process. As in native.ts arguments are checked before any launch; absent values are null.
 */
import { existsSync } from 'node:fs';
import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import type { KvFormat } from './catalogue.ts';
import type { ModelShape, ModelTensors } from './model/model-shape.ts';
import { NativeError, nativeFile, type StepBatch, type StepOutput } from './native.ts';

declare const modelBrand: unique symbol;
declare const kvCacheBrand: unique symbol;
/** A model on the device. Owned by the caller until `closeModel`. */
export type CudaModelHandle = { readonly [modelBrand]: true };
/** A paged KV cache on the device. Owned until `closeKvCache`. */
export type CudaKvCacheHandle = { readonly [kvCacheBrand]: true };

export interface CudaDeviceInfo {
  readonly name: string;
  /** The kernels run on the CPU, for tests: right in what they compute, and in nothing else like a GPU. */
  readonly isEmulated: boolean;
  /** 90: 9.0 */
  readonly computeCapability: number;
  readonly multiprocessorCount: number;
  readonly memoryBytes: number;
  readonly freeBytes: number;
  readonly l2Bytes: number;
  /** cuBLASLt was found by its name. */
  readonly hasGemmLibrary: boolean;
}

/** Now, from the driver; null where it does not say. */
export interface CudaTelemetry {
  readonly smClockMhz: number | null;
  readonly memoryClockMhz: number | null;
  readonly powerWatts: number | null;
  /** Since the driver was loaded. */
  readonly energyJoules: number | null;
  readonly temperatureCelsius: number | null;
  readonly memoryUsedBytes: number | null;
}

/** What a step may need at most; memory is taken for it when the model is opened. */
export interface CudaLimits {
  readonly mostTokens: number;
  readonly mostSequences: number;
  /** Rows that a token is drawn from or that are scored. */
  readonly mostHeadRows: number;
  readonly mostBlocksPerSequence: number;
}

/** Which kernels a step runs. Only `linear`, `weights`, `kvFormat`, `splitTokens` and `decode` decide bits. */
export interface CudaPath {
  /** VariatorCudaPath's number of it, see cuda-variants.ts. */
  readonly linear: number;
  /** What matrices are held as: `cudaWeightFormats` has the numbers. */
  readonly weights: number;
  /** Of the cache that a step runs on, as `cudaAttentions` has the numbers; it must be in it by then. */
  readonly kvFormat: number;
  readonly splitTokens: number;
  /** 0: by the number of rows. */
  readonly mmaTile: number;
  readonly gemvRowsPerWarp: number;
  readonly gemvLoads: number;
  readonly usesGraphs: boolean;
  /** Which attention decoding rows go by: `cudaAttentions` has the numbers. */
  readonly decode: number;
}

export interface CudaStepOutput extends Omit<StepOutput, 'threadCount' | 'foreignCpuShare'> {
  /** Between two events of the device around the step's launches. */
  readonly deviceMs: number;
  /** The whole native call. */
  readonly hostMs: number;
  readonly launchCount: number;
  readonly isGraph: boolean;
  /** Sequences that the graph was captured for; 0 without one. */
  readonly paddedCount: number;
}

export interface CudaKernels {
  device(): CudaDeviceInfo;
  /** Off the event loop and off the thread of steps. */
  telemetry(): Promise<CudaTelemetry>;
  /** Tiles that `mmaTile` may name, from 1. */
  mmaTileCount(): number;
  /** Rounds matrices to bf16 and moves them to the device. Dense models with keys and values of their own alone. */
  openModel(
    shape: ModelShape,
    tensors: ModelTensors,
    limits: CudaLimits,
  ): Promise<{ model: CudaModelHandle; weightBytes: number }>;
  createKvCache(
    model: CudaModelHandle,
    blockCount: number,
    blockSize: number,
    kvFormat: KvFormat,
  ): Promise<{ kvCache: CudaKvCacheHandle; blockBytes: number }>;
  /** Blocks that the cache's memory holds in a format. */
  kvBlockCount(kvCache: CudaKvCacheHandle, kvFormat: KvFormat): number;
  /**
   * Changes the format between two steps. Blocks in `blockIds` (ascending, below both formats' block counts) keep their ids
   * and, rounded, their contents; all others are lost. What was prepared on the cache stays so.
   */
  convertKvCache(
    model: CudaModelHandle,
    kvCache: CudaKvCacheHandle,
    kvFormat: KvFormat,
    blockIds: Int32Array,
  ): Promise<{ convertMs: number }>;
  /**
   * Makes the codes of the path's weights and captures its graphs on this cache; idempotent. It takes the model's thread:
   * steps wait for it.
   */
  prepare(model: CudaModelHandle, kvCache: CudaKvCacheHandle, path: CudaPath): Promise<{ prepareMs: number }>;
  isBatchInvariant(path: CudaPath): boolean;
  /**
   * One step at a time per model; a second call rejects. The path must be prepared on this cache.
   * @throws DeviceLostError where the device is gone with it, NativeError otherwise
   */
  runStep(
    model: CudaModelHandle,
    kvCache: CudaKvCacheHandle,
    path: CudaPath,
    batch: StepBatch,
  ): Promise<CudaStepOutput>;
  closeKvCache(kvCache: CudaKvCacheHandle): void;
  closeModel(model: CudaModelHandle): void;
}

/** The device failed and fails from now on, whatever it is asked: the worker must end, and its sequences go elsewhere. */
export class DeviceLostError extends Error {
  override readonly name = 'DeviceLostError';
}

/** What build-cuda.mjs compiled. */
export const cudaLibraryFiles = {
  cuda: fileURLToPath(new URL('./build/cuda/native/libvariator_cuda.so', import.meta.url)),
  'cuda-emulated': fileURLToPath(
    new URL('./build/cuda/emulated/libvariator_cuda_emulated.so', import.meta.url),
  ),
} as const;

/**
 * Opens the library and its device.
 * @param ordinal of the devices that the process may see (CUDA_VISIBLE_DEVICES), in the order of their PCI buses
 * @throws NativeError where the library has not been built, is of another build, or finds no driver or no such GPU
 */
export function loadCuda(libraryFile: string, ordinal: number): CudaKernels {
  if (!existsSync(libraryFile)) {
    throw new NativeError(
      `The CUDA kernels have not been built (${libraryFile} is not there). Build them with: npm run build:cuda`,
    );
  }
  const require = createRequire(import.meta.url);
  type BindCuda = (
    nativeError: typeof NativeError,
    deviceLostError: typeof DeviceLostError,
    libraryFile: string,
    ordinal: number,
  ) => CudaKernels;
  const { bindCuda } = require(nativeFile) as { bindCuda: BindCuda };
  return bindCuda(NativeError, DeviceLostError, libraryFile, ordinal);
}
