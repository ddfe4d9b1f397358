/**
 * What a step should cost before any was timed: weights over measured bandwidth, arithmetic over measured rates
 * (algorithms.md a, prior). The start of every fit, and the fit itself until ten steps were seen. Pure.
 */
import { type Envelope, type ExecutionPath, kvBytesPerTokenOf } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';

export interface StepTimePrior {
  readonly betaMs: StepTimeFit['betaMs'];
  readonly kneeTokens: number;
}

/** Knees the fit scans. On a CPU arithmetic catches up with reading the weights after a few tokens. */
export const KNEES = [4, 8, 16, 32, 64, 128, 256, 512] as const;

/** Composing a launch and waking the threads; a GPU's 1 ms of the formula is not spent on a CPU. */
const LAUNCH_MS = { cpu: 0.1, gpu: 1 } as const;

export function rooflinePrior(envelope: Envelope, path: ExecutionPath): StepTimePrior {
  const { probe } = envelope;
  const threadShare = path.threadCount / Math.max(1, envelope.threadCount);
  const isFloat32 = path.linear === 'linear.reference' || path.linear.startsWith('linear.cuda-');
  const linearRate = (isFloat32 ? probe.float32FlopsPerSecond : probe.int8OpsPerSecond) * threadShare;
  const attentionRate = probe.float32FlopsPerSecond * threadShare;
  const weightBytes =
    envelope.weightBytes[path.linear] ?? envelope.activeParameterCount * (isFloat32 ? 4 : 1);

  const readMs = (weightBytes / positive(0.8 * probe.readBytesPerSecond)) * 1000;
  const tokenMs = ((2 * envelope.activeParameterCount) / positive(0.7 * linearRate)) * 1000;
  const attentionOps = 4 * envelope.layerCount * envelope.headCount * envelope.headSize;
  return {
    betaMs: {
      perStep: readMs + (envelope.deviceKind.startsWith('cpu') ? LAUNCH_MS.cpu : LAUNCH_MS.gpu),
      perToken: 0.1 * tokenMs,
      perTokenAboveKnee: 0.9 * tokenMs,
      perDecodeSequence: 0.01,
      perPrefillSequence: 0.05,
      perDecodeContextToken:
        (kvBytesPerTokenOf(envelope, path) / positive(0.7 * probe.readBytesPerSecond)) * 1000,
      perPrefillAttention: (attentionOps / positive(0.6 * attentionRate)) * 1000,
    },
    kneeTokens: nearestKnee(readMs / tokenMs),
  };
}

/** The scanned knee nearest to `tokens`, by ratio. */
function nearestKnee(tokens: number): number {
  const distance = (knee: number): number => Math.abs(Math.log(knee / Math.max(1, tokens)));
  return KNEES.reduce<number>((best, knee) => (distance(knee) < distance(best) ? knee : best), KNEES[0]);
}

/** A probe that could not measure says 0; a thousand million a second then stands in. */
const positive = (rate: number): number => (Number.isFinite(rate) && rate > 0 ? rate : 1e9);
