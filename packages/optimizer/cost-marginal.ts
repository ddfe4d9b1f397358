/**
 * What a step would have been spared without one of its sequences, beside what that sequence is charged. Charges add up to
 * the device's time; marginal costs need not: the weight read b0 is paid as long as anybody runs, so only who runs alone
 * saves it by staying away. Called by cost-ledger.ts and the bench. Pure; formulas as in packages/scheduler/step-time.ts.
 */
import { type StepFeatures, type StepTimeFit, sevenTermsMs } from '@variator/scheduler/step-time';

export interface KindMs {
  readonly prefillMs: number;
  readonly decodeMs: number;
}

/** Sums over the step's sequences of t(all) - t(all but one), by kind; of prefills with chunks of equal length. */
export function marginalOfStep(fit: StepTimeFit, features: StepFeatures): KindMs {
  const { decodeSequenceCount, prefillSequenceCount, prefillTokenCount } = features;
  if (decodeSequenceCount + prefillSequenceCount === 1) {
    const wholeMs = sevenTermsMs(fit, features);
    return decodeSequenceCount === 1
      ? { prefillMs: 0, decodeMs: wholeMs }
      : { prefillMs: wholeMs, decodeMs: 0 };
  }
  const beta = fit.betaMs;
  const aboveKnee = Math.max(0, features.tokenCount - fit.kneeTokens);
  const chunk = prefillSequenceCount === 0 ? 0 : prefillTokenCount / prefillSequenceCount;
  return {
    prefillMs:
      beta.perToken * prefillTokenCount +
      beta.perTokenAboveKnee * prefillSequenceCount * Math.min(chunk, aboveKnee) +
      beta.perPrefillSequence * prefillSequenceCount +
      beta.perPrefillAttention * features.prefillAttention,
    decodeMs:
      decodeSequenceCount *
        (beta.perToken + beta.perTokenAboveKnee * Math.min(1, aboveKnee) + beta.perDecodeSequence) +
      beta.perDecodeContextToken * features.decodeContextTokens,
  };
}

/** What the same step charges, by kind: the sums of chargeStep before they are scaled to the measured time. */
export function chargedOfStep(fit: StepTimeFit, features: StepFeatures): KindMs {
  const { tokenCount, decodeSequenceCount, prefillSequenceCount } = features;
  const beta = fit.betaMs;
  const sequenceCount = decodeSequenceCount + prefillSequenceCount;
  const decodeMs =
    (beta.perStep * decodeSequenceCount) / sequenceCount +
    ((beta.perToken * tokenCount + beta.perTokenAboveKnee * Math.max(0, tokenCount - fit.kneeTokens)) *
      decodeSequenceCount) /
      tokenCount +
    beta.perDecodeSequence * decodeSequenceCount +
    beta.perDecodeContextToken * features.decodeContextTokens;
  return { prefillMs: sevenTermsMs(fit, features) - decodeMs, decodeMs };
}

/** A served step of the span that is asked about, and the fit of its kernels. */
export interface TimedStep {
  readonly features: StepFeatures;
  readonly deviceMs: number;
  readonly fit: StepTimeFit;
}

/** Marginal ms to one ms charged, 0..1 where batching saves; null where no such work was seen. */
export interface MarginalShares {
  readonly prefill: number | null;
  readonly decode: number | null;
}

export function marginalShares(steps: readonly TimedStep[]): MarginalShares {
  let marginal: KindMs = { prefillMs: 0, decodeMs: 0 };
  let charged: KindMs = { prefillMs: 0, decodeMs: 0 };
  for (const { features, deviceMs, fit } of steps) {
    const predictedMs = sevenTermsMs(fit, features);
    if (!(predictedMs > 0) || features.tokenCount === 0) continue;
    const scale = deviceMs / predictedMs;
    marginal = added(marginal, marginalOfStep(fit, features), scale);
    charged = added(charged, chargedOfStep(fit, features), scale);
  }
  return {
    prefill: charged.prefillMs > 0 ? marginal.prefillMs / charged.prefillMs : null,
    decode: charged.decodeMs > 0 ? marginal.decodeMs / charged.decodeMs : null,
  };
}

/** Device ms that cached prompt tokens spared: b1 + b2 a token, and the attention of computing them, b6 c^2 / 2. */
export function savedMs(
  fit: StepTimeFit,
  cached: { readonly tokenCount: number; readonly squaredTokenCount: number },
): number {
  const { perToken, perTokenAboveKnee, perPrefillAttention } = fit.betaMs;
  return (
    (perToken + perTokenAboveKnee) * cached.tokenCount + (perPrefillAttention * cached.squaredTokenCount) / 2
  );
}

const added = (sum: KindMs, more: KindMs, scale: number): KindMs => ({
  prefillMs: sum.prefillMs + scale * more.prefillMs,
  decodeMs: sum.decodeMs + scale * more.decodeMs,
});
