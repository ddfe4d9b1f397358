/**
 * The CPU as a device: maps the model, makes the paged KV cache, runs batches through the native border (step-input.ts).
 * Started by worker/main.ts. The first KV blocks are the scheduler's, the last ones scratch.
 */
import { type IsaLimit, linearVariantsFor, weightBytes } from '@variator/kernels/catalogue';
import type { Envelope } from '@variator/kernels/execution-path';
import {
  KV_BLOCK_SIZE,
  type KvPlanOptions,
  kvPlan,
  MAX_RUNNING_COUNT,
  SCRATCH_BLOCK_COUNT,
} from '@variator/kernels/kv-plan';
import type { LoadedModel } from '@variator/kernels/model';
import { activeMatrices } from '@variator/kernels/model/active-weights';
import { type TensorSource, valueSizeOf } from '@variator/kernels/model/model-shape';
import { loadNative } from '@variator/kernels/native';
import type { Device } from './device.ts';
import { entryLogprobs, stepInput } from './step-input.ts';

export interface CpuDeviceOptions extends KvPlanOptions {
  readonly threadCount: number;
  readonly isa: IsaLimit;
}

const MAX_TOKEN_BUDGET = 2048;

/** @throws KvPlanError when the KV memory cannot hold one sequence; NativeError from below */
export function cpuDevice(model: LoadedModel, options: CpuDeviceOptions): Device {
  const { shape, tensors } = model;
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
  const kvCache = native.createKvCache(handle, kvBlockCount + SCRATCH_BLOCK_COUNT, KV_BLOCK_SIZE);
  const activeParameterCount = weights.reduce((sum, { rows, columns }) => sum + rows * columns, 0);

  const envelope: Envelope = {
    // By the instructions alone: what the weights are held as is in kernelsId.
    deviceKind: `cpu-${linearVariants[0]?.split('-').at(-1) ?? 'reference'}`,
    deviceName: probe.cpuModel,
    modelId: model.modelId,
    modelHash: model.modelHash,
    linearVariants,
    attentionVariants: ['attention.reference'],
    threadCount: options.threadCount,
    kvBlockCount,
    kvBlockSize: KV_BLOCK_SIZE,
    maxModelLenTokens,
    maxTokenBudget: MAX_TOKEN_BUDGET,
    maxRunningCount: MAX_RUNNING_COUNT,
    vocabularySize: shape.vocabularySize,
    layerCount: shape.layerCount,
    headCount: shape.headCount,
    headSize: Math.ceil((shape.headSize + valueSizeOf(shape)) / 2),
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

  return {
    envelope,
    scratchBlockIds: Array.from({ length: SCRATCH_BLOCK_COUNT }, (_, index) => kvBlockCount + index),
    async prepare(path) {
      const { prepareMs } = await native.prepareLinear(handle, path.linear);
      return { prepareMs };
    },
    async run(path, entries) {
      const output = await native.runStep(handle, kvCache, stepInput(path, entries));
      const { sampledTokenIds, deviceMs, foreignCpuShare } = output;
      const logprobs = entryLogprobs(entries, output);
      return {
        sampledTokenIds,
        deviceMs,
        foreignCpuShare,
        ...(logprobs === null ? {} : { logprobs }),
      };
    },
    close() {
      native.closeKvCache(kvCache);
      native.closeModel(handle);
    },
  };
}
