/**
 * Measured steps as the fit takes them, and which of them it keeps: the newest 32 of each bucket of batch shapes, so
 * that a long regime cannot push out what an earlier one taught (algorithms.md a, "forgetting"). Pure.
 */
import type { StepFeatures } from '@variator/scheduler/step-time';
import { median } from './quantile.ts';

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

/**
 * The samples to fit from, newest first. Steps during which others took more of the machine than they usually do are
 * left out, unless the machine is always that busy.
 */
export function keepSamples(samples: readonly StepSample[]): StepSample[] {
  const usable = samples.filter(
    (sample) => Number.isFinite(sample.deviceMs) && sample.deviceMs > 0 && sample.tokenCount > 0,
  );
  const mostForeign = Math.max(0.25, median(usable.map((sample) => sample.foreignCpuShare)) || 0);
  const counts = new Map<string, number>();
  return usable
    .filter((sample) => sample.foreignCpuShare <= mostForeign)
    .sort((a, b) => b.at - a.at)
    .filter((sample) => {
      const bucket = bucketOf(sample);
      const count = counts.get(bucket) ?? 0;
      counts.set(bucket, count + 1);
      return count < SAMPLES_PER_BUCKET;
    });
}
