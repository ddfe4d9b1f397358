/**
 * A device that nobody has here: steps take as long as the step-time model says a machine of its kind would take, in real
 * time, and tokens are those of a sentence that says so. For operating, testing and showing fleets. Opened by worker/main.ts
 * for `--device simulated:NAME`. It reads no weights and computes no model; everything else is the real worker.
 */
import { setImmediate as nextTurn, setTimeout as pause } from 'node:timers/promises';
import { Tokenizer } from '@huggingface/tokenizers';
import type { LinearVariantId } from '@variator/kernels/catalogue';
import { type Envelope, type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import { KV_BLOCK_SIZE, KvPlanError, SCRATCH_BLOCK_COUNT } from '@variator/kernels/kv-plan';
import type { LoadedModel } from '@variator/kernels/model';
import { activeMatrices } from '@variator/kernels/model/active-weights';
import { cachedShapeOf } from '@variator/kernels/model/model-shape';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import { seededRandom } from '@variator/optimizer/seeded-random';
import type { BatchEntry } from '@variator/scheduler/batch';
import type { TokenLogprobs } from '@variator/scheduler/sequence';
import { featuresOf, predictMs, type StepTimeFit } from '@variator/scheduler/step-time';
import { type SimulatedDeviceName, simulatedMachines } from '../config/simulated-machines.ts';
import type { Device, DeviceResult } from './device.ts';

export interface SimulatedDeviceOptions {
  readonly name: SimulatedDeviceName;
  /** As it was given, `simulated:` included: with other settings it is a device of another kind. */
  readonly text: string;
  /** Null: what the model served has. */
  readonly parameterCount: number | null;
  readonly kvBytesPerToken: number | null;
  /** Spread of a step's log time. */
  readonly noise: number;
  readonly maxModelLenTokens: number | null;
}

const ANSWER = ' This answer is simulated: no model computed it.';
const MAX_TOKEN_BUDGET = 8192;
const MAX_RUNNING_COUNT = 256;
/** Of its memory, as servers leave some for activations. */
const USABLE_MEMORY = 0.9;
/** A timer that fires late is made up for by the step after it, up to so much. */
const MOST_DEBT_MS = 20;
const SEED = 1;

/** @throws KvPlanError where the weights leave no room for a sequence */
export function simulatedDevice(model: LoadedModel, options: SimulatedDeviceOptions): Device {
  const envelope = envelopeOf(model, options);
  const sentence = answerTokens(model);
  const random = seededRandom(SEED);
  const fits = new Map<string, StepTimeFit>();
  const now = () => performance.now();
  let lateMs = 0;

  function fitOf(path: ExecutionPath): StepTimeFit {
    const kernels = kernelsId(path);
    const known = fits.get(kernels);
    if (known) return known;
    const { deviceKind, modelHash } = envelope;
    const fit: StepTimeFit = {
      ...rooflinePrior(envelope, path),
      fitId: '',
      deviceKind,
      modelHash,
      kernelsId: kernels,
      fittedAt: 0,
      sampleCount: 0,
      heldOutMape: null,
      heldOutCount: 0,
      logBand90: null,
    };
    fits.set(kernels, fit);
    return fit;
  }

  return {
    envelope,
    scratchBlockIds: Array.from({ length: SCRATCH_BLOCK_COUNT }, (_, index) => index),
    prepare: async () => ({ prepareMs: 0 }),
    keepKvFor: async () => ({ convertMs: 0 }),
    measureAside: async () => false,
    async run(path, entries): Promise<DeviceResult> {
      const deviceMs =
        predictMs(fitOf(path), featuresOf(entries)) * Math.exp(options.noise * random.normal());
      const dueAt = now() - Math.min(lateMs, MOST_DEBT_MS) + deviceMs;
      // Timers count whole milliseconds, and 1 at least.
      const waitMs = Math.floor(dueAt - now());
      if (waitMs >= 1) await pause(waitMs);
      while (now() < dueAt) await nextTurn();
      lateMs = now() - dueAt;
      const sampledTokenIds = Int32Array.from(entries, (entry) =>
        entry.isSampled ? tokenAfter(sentence, entry) : -1,
      );
      const isScored = entries.some(({ sampling }) => sampling.logprobCount !== undefined);
      return {
        sampledTokenIds,
        deviceMs,
        foreignCpuShare: 0,
        ...(isScored ? { logprobs: entries.map((entry) => logprobsOf(sentence, entry)) } : {}),
      };
    },
    close() {},
  };
}

/** By its place in the sequence alone, so that a resumed sequence and another path say the same. */
function tokenAfter(sentence: readonly number[], { contextLength, tokenIds }: BatchEntry): number {
  return sentence[(contextLength + tokenIds.length) % sentence.length] ?? 0;
}

/** It is certain of what it says, and thinks nothing of what it is given. */
function logprobsOf(sentence: readonly number[], entry: BatchEntry): TokenLogprobs[] {
  if (entry.sampling.logprobCount === undefined) return [];
  const certain = (tokenId: number): TokenLogprobs => ({
    logprob: 0,
    top: entry.sampling.logprobCount === 0 ? [] : [[tokenId, 0]],
  });
  const scored = (entry.scoredTokenIds ?? []).filter((tokenId) => tokenId >= 0).map(certain);
  return entry.isSampled ? [...scored, certain(tokenAfter(sentence, entry))] : scored;
}

function answerTokens({ tokenizer, shape }: LoadedModel): number[] {
  const { ids } = new Tokenizer(tokenizer.tokenizerJson, tokenizer.tokenizerConfig).encode(ANSWER, {
    add_special_tokens: false,
  });
  const known = ids.filter((id) => id < shape.vocabularySize && !tokenizer.eosTokenIds.includes(id));
  return known.length > 0 ? known : [0];
}

function envelopeOf(model: LoadedModel, options: SimulatedDeviceOptions): Envelope {
  const { shape } = model;
  const cached = cachedShapeOf(shape);
  const machine = simulatedMachines[options.name];
  const ownCount = activeMatrices(shape, model.tensors).reduce(
    (sum, { rows, columns }) => sum + rows * columns,
    0,
  );
  const activeParameterCount = options.parameterCount ?? ownCount;
  // bfloat16, as these machines keep weights and cache.
  const kvBytesPerToken =
    options.kvBytesPerToken ?? 2 * shape.layerCount * cached.headCount * (cached.keySize + cached.valueSize);
  const weightBytes: Partial<Record<LinearVariantId, number>> = {
    'linear.int8-generic': activeParameterCount,
    'linear.reference': 2 * activeParameterCount,
  };
  const free = USABLE_MEMORY * machine.memoryBytes - 2 * activeParameterCount;
  const kvBlockCount = Math.floor(free / (kvBytesPerToken * KV_BLOCK_SIZE)) - SCRATCH_BLOCK_COUNT;
  const wanted = Math.min(shape.maxPositionCount, options.maxModelLenTokens ?? shape.maxPositionCount);
  if (kvBlockCount * KV_BLOCK_SIZE < wanted) {
    throw new KvPlanError(
      `${activeParameterCount} parameters leave room for ${Math.max(0, kvBlockCount * KV_BLOCK_SIZE)} tokens on ${machine.title}; lower parameters or kvBytesPerToken of --device.`,
    );
  }
  return {
    deviceKind: options.text.replace(/[^\w.]+/g, '-'),
    deviceName: `${machine.title} (simulated)`,
    modelId: model.modelId,
    modelHash: model.modelHash,
    linearVariants: ['linear.int8-generic', 'linear.reference'],
    attentionVariants: ['attention.reference'],
    threadCount: 1,
    kvBlockCount,
    kvBlockCounts: {},
    maxDraftTokenCount: 0,
    kvBlockSize: KV_BLOCK_SIZE,
    maxModelLenTokens: wanted,
    maxTokenBudget: MAX_TOKEN_BUDGET,
    maxRunningCount: MAX_RUNNING_COUNT,
    vocabularySize: shape.vocabularySize,
    layerCount: shape.layerCount,
    headCount: shape.headCount,
    headSize: Math.ceil((cached.keySize + cached.valueSize) / 2),
    activeParameterCount,
    weightBytes,
    kvBytesPerToken,
    probe: {
      cpuModel: `${machine.title} (simulated)`,
      coreCount: 1,
      features: [],
      readBytesPerSecond: machine.readBytesPerSecond,
      float32FlopsPerSecond: machine.bfloat16FlopsPerSecond,
      int8OpsPerSecond: machine.int8OpsPerSecond,
    },
  };
}
