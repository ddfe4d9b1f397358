/**
 * Measured steps as the fit takes them, and which of them it keeps: the newest 32 of each bucket of batch shapes, so
 * that a long regime cannot push out what an earlier one taught (algorithms.md a, "forgetting"). Pure.
 */
import type { StepFeatures } from '@variator/scheduler/step-time';

export interface StepSample extends StepFeatures {
  readonly deviceMs: number;
  /** Epoch ms at which the step started. */
  readonly at: number;
  /** Share of the machine's CPU time taken by other processes meanwhile, 0..1. */
  readonly foreignCpuShare: number;
}

export const SAMPLES_PER_BUCKET = 32;

const floorLog2 = (value: number): number => Math.floor(Math.log2(1 + value));

export function bucketOf(features: StepFeatures): string {
  const tokens = floorLog2(features.tokenCount);
  const context = Math.floor(floorLog2(features.decodeContextTokens) / 2);
  const attention = Math.floor(floorLog2(features.prefillAttention) / 3);
  return `${tokens}.${context}.${attention}`;
}

/** The samples to fit from, newest first. */
export function keepSamples(samples: readonly StepSample[]): StepSample[] {
  const counts = new Map<string, number>();
  return samples
    .filter((sample) => Number.isFinite(sample.deviceMs) && sample.deviceMs > 0 && sample.tokenCount > 0)
    .sort((a, b) => b.at - a.at)
    .filter((sample) => {
      const bucket = bucketOf(sample);
      const count = counts.get(bucket) ?? 0;
      counts.set(bucket, count + 1);
      return count < SAMPLES_PER_BUCKET;
    });
}

/** Foreign share at which a step says half as much about the kernels as an undisturbed one. */
const HALF_TRUST_SHARE = 0.15;
/** At or below this a step counts as undisturbed. */
export const QUIET_SHARE = 0.1;

/** How much a step says about its kernels, 0..1: less, the more other processes took of the machine meanwhile. */
export const trustIn = (sample: StepSample): number =>
  1 / (1 + (sample.foreignCpuShare / HALF_TRUST_SHARE) ** 2);

export const isQuiet = (sample: StepSample): boolean => sample.foreignCpuShare <= QUIET_SHARE;
