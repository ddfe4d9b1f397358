/**
 * What to believe of kernels before they ran: the roofline, corrected by what relatives with the same attention measured.
 * Called by the service for every fit. Pure.
 */
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { LEAST_SAMPLE_COUNT } from './fit-step-time.ts';
import { rooflinePrior, type StepTimePrior } from './roofline-prior.ts';

export interface Relative {
  readonly path: ExecutionPath;
  readonly fit: StepTimeFit;
}

/** Attention's and the sequences' terms carry over where attention and threads are the same; the linear layers' do not. */
export function priorFor(
  envelope: Envelope,
  path: ExecutionPath,
  relatives: readonly Relative[],
): StepTimePrior {
  const roofline = rooflinePrior(envelope, path);
  const best = relatives
    .filter(
      ({ path: other, fit }) =>
        other.linear !== path.linear &&
        other.attention === path.attention &&
        other.threadCount === path.threadCount &&
        fit.sampleCount >= LEAST_SAMPLE_COUNT,
    )
    .sort((a, b) => b.fit.sampleCount - a.fit.sampleCount)[0];
  if (best === undefined) return roofline;
  const { betaMs } = best.fit;
  // A term at zero may only never have been seen; the roofline knows that it costs something.
  const either = (measured: number, computed: number): number => (measured > 0 ? measured : computed);
  return {
    ...roofline,
    betaMs: {
      ...roofline.betaMs,
      perDecodeSequence: either(betaMs.perDecodeSequence, roofline.betaMs.perDecodeSequence),
      perPrefillSequence: either(betaMs.perPrefillSequence, roofline.betaMs.perPrefillSequence),
      perDecodeContextToken: either(betaMs.perDecodeContextToken, roofline.betaMs.perDecodeContextToken),
      perPrefillAttention: either(betaMs.perPrefillAttention, roofline.betaMs.perPrefillAttention),
    },
  };
}
