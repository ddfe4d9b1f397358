/** A small machine for this package's tests: an envelope, a path and a fit of plausible figures. Imported by tests alone. */
import { type Envelope, type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';

export const testEnvelope: Envelope = {
  deviceKind: 'cpu',
  deviceName: 'test CPU',
  modelId: 'SmolLM2',
  modelHash: 'm',
  linearVariants: ['linear.int8-avx512vnni', 'linear.int8-generic', 'linear.reference'],
  attentionVariants: ['attention.reference'],
  threadCount: 2,
  kvBlockCount: 1024,
  kvBlockCounts: {},
  kvBlockSize: 16,
  maxModelLenTokens: 2048,
  maxTokenBudget: 512,
  maxRunningCount: 32,
  maxDraftTokenCount: 0,
  vocabularySize: 49152,
  layerCount: 30,
  headCount: 9,
  headSize: 64,
  activeParameterCount: 134.5e6,
  weightBytes: { 'linear.int8-avx512vnni': 143e6, 'linear.int8-generic': 143e6, 'linear.reference': 84e6 },
  kvBytesPerToken: 46080,
  probe: {
    cpuModel: 'test',
    coreCount: 2,
    features: [],
    readBytesPerSecond: 30e9,
    float32FlopsPerSecond: 220e9,
    int8OpsPerSecond: 900e9,
  },
};

export const testPath: ExecutionPath = {
  linear: 'linear.int8-avx512vnni',
  attention: 'attention.reference',
  threadCount: 2,
  tokenBudget: 512,
  maxRunningCount: 32,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
};

export const testFit: StepTimeFit = {
  fitId: 'fit-of-the-test',
  deviceKind: 'cpu',
  modelHash: 'm',
  kernelsId: kernelsId(testPath),
  fittedAt: 0,
  sampleCount: 400,
  kneeTokens: 8,
  betaMs: {
    perStep: 5,
    perToken: 0.1,
    perTokenAboveKnee: 0.35,
    perDecodeSequence: 0.02,
    perPrefillSequence: 0.05,
    perDecodeContextToken: 0.002,
    perPrefillAttention: 0.0004,
  },
  heldOutMape: 0.03,
  heldOutCount: 80,
  logBand90: 0.06,
};
