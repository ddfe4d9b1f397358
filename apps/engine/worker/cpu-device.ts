/**
 * The CPU as a device: maps the model, makes the paged KV cache, turns batches into the flat arrays of the native border.
 * Started by worker/main.ts. The first KV blocks are the scheduler's, the last ones scratch.
 */
import { linearVariantsFor } from '@variator/kernels/catalogue';
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import {
  KV_BLOCK_SIZE,
  type KvPlanOptions,
  kvPlan,
  MAX_RUNNING_COUNT,
  SCRATCH_BLOCK_COUNT,
} from '@variator/kernels/kv-plan';
import type { LoadedModel } from '@variator/kernels/model';
import type { TensorSource } from '@variator/kernels/model/model-shape';
import { loadNative, type StepInput } from '@variator/kernels/native';
import type { BatchEntry } from '@variator/scheduler/batch';
import type { Device } from './device.ts';

export interface CpuDeviceOptions extends KvPlanOptions {
  readonly threadCount: number;
}

const MAX_TOKEN_BUDGET = 2048;

/** @throws KvPlanError when the KV memory cannot hold one sequence; NativeError from below */
export function cpuDevice(model: LoadedModel, options: CpuDeviceOptions): Device {
  const { shape, tensors } = model;
  const native = loadNative();
  const probe = native.probeMachine(options.threadCount);
  const { blockCount: kvBlockCount, kvBytesPerToken, maxModelLenTokens } = kvPlan(shape, options);
  const linearVariants = linearVariantsFor(probe.features);
  const handle = native.openModel(shape, tensors, options.threadCount);
  const kvCache = native.createKvCache(handle, kvBlockCount + SCRATCH_BLOCK_COUNT, KV_BLOCK_SIZE);
  const weights = linearWeights(model);
  const activeParameterCount = weights.reduce((sum, { rows, columns }) => sum + rows * columns, 0);
  const storedBytes = weights.reduce((sum, { byteLength }) => sum + byteLength, 0);

  const envelope: Envelope = {
    deviceKind: `cpu-${linearVariants[0]?.replace('linear.', '') ?? 'reference'}`,
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
    headSize: shape.headSize,
    activeParameterCount,
    // int8 panels: a byte a weight and two float32 scales per group of 32.
    weightBytes: Object.fromEntries(
      linearVariants.map((id) => [
        id,
        id === 'linear.reference' ? storedBytes : Math.round(activeParameterCount * 1.25),
      ]),
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
      const { sampledTokenIds, deviceMs, foreignCpuShare } = await native.runStep(
        handle,
        kvCache,
        stepInput(path, entries),
      );
      return { sampledTokenIds, deviceMs, foreignCpuShare };
    },
    close() {
      native.closeKvCache(kvCache);
      native.closeModel(handle);
    },
  };
}

/** The matrices a token multiplies with: every projection and the LM head, not the embedding. */
function linearWeights({ tensors }: LoadedModel): TensorSource[] {
  return [
    ...tensors.layers.flatMap(({ q, k, v, o, gate, up, down }) => [q, k, v, o, gate, up, down]),
    tensors.head,
  ];
}

const TWO_TO_32 = 2 ** 32;

/** Flattens a batch; shapes stand in packages/kernels/native.ts. */
export function stepInput(path: ExecutionPath, entries: readonly BatchEntry[]): StepInput {
  const count = entries.length;
  const tokenCount = entries.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0);
  const blockTableStride = entries.reduce((most, { blockTable }) => Math.max(most, blockTable.length), 1);
  const input = {
    linear: path.linear,
    threadCount: path.threadCount,
    tokenIds: new Int32Array(tokenCount),
    tokenStarts: new Int32Array(count + 1),
    contextLengths: new Int32Array(count),
    blockTables: new Int32Array(count * blockTableStride),
    blockTableStride,
    isSampled: new Uint8Array(count),
    temperatures: new Float32Array(count),
    topPs: new Float32Array(count),
    topKs: new Int32Array(count),
    seeds: new Uint32Array(2 * count),
    isLogitsWanted: false,
  };
  let at = 0;
  entries.forEach(({ tokenIds, contextLength, blockTable, isSampled, sampling }, index) => {
    input.tokenIds.set(tokenIds, at);
    at += tokenIds.length;
    input.tokenStarts[index + 1] = at;
    input.contextLengths[index] = contextLength;
    input.blockTables.set(blockTable, index * blockTableStride);
    input.isSampled[index] = isSampled ? 1 : 0;
    input.temperatures[index] = sampling.temperature;
    input.topPs[index] = sampling.topP;
    input.topKs[index] = sampling.topK;
    input.seeds[2 * index] = sampling.seed % TWO_TO_32;
    input.seeds[2 * index + 1] = Math.floor(sampling.seed / TWO_TO_32);
  });
  return input;
}
