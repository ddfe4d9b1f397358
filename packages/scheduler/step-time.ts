/**
 * The step-time model's features, its prediction, and the charging of measured device ms to sequences. Pure.
 * Fitting lives in packages/optimizer; worker, gateway and the virtual clock use this file with a fit that arrives as
 * data. Formulas: T tokens, B decoding sequences, n prefilling sequences, C decode context tokens, Q prefill attention.
 */
import type { BatchEntry } from './batch.ts';

export interface StepFeatures {
  /** T: tokens the step computes, prefill and decode. */
  readonly tokenCount: number;
  /** B. */
  readonly decodeSequenceCount: number;
  readonly prefillSequenceCount: number;
  readonly prefillTokenCount: number;
  /** C: sum of context lengths of decoding sequences. */
  readonly decodeContextTokens: number;
  /** Q: sum over prefill chunks of c * (p + c / 2), c tokens computed onto p already cached. */
  readonly prefillAttention: number;
}

/** A fitted step-time model of one (device kind, model, kernelsId): seven terms, all >= 0, milliseconds. */
export interface StepTimeFit {
  readonly fitId: string;
  readonly deviceKind: string;
  readonly modelHash: string;
  readonly kernelsId: string;
  readonly fittedAt: number;
  readonly sampleCount: number;
  /** T0 of the hinge term, tokens. */
  readonly kneeTokens: number;
  readonly betaMs: {
    readonly perStep: number;
    readonly perToken: number;
    readonly perTokenAboveKnee: number;
    readonly perDecodeSequence: number;
    readonly perPrefillSequence: number;
    readonly perDecodeContextToken: number;
    readonly perPrefillAttention: number;
  };
  /** Mean absolute relative error on held-out steps, 0..1; null before any were held out. */
  readonly heldOutMape: number | null;
  readonly heldOutCount: number;
  /** Half-width of the 90 % band of log(measured / predicted) on held-out steps. */
  readonly logBand90: number | null;
}

/** What the features and the charging read of a batch's entry. */
export type TimedEntry = Pick<BatchEntry, 'tokenIds' | 'contextLength' | 'kind'>;

/** Recomputed tokens cost what prefilled ones do, so they count as prefill here. */
export function featuresOf(entries: readonly TimedEntry[]): StepFeatures {
  let tokenCount = 0;
  let decodeSequenceCount = 0;
  let decodeContextTokens = 0;
  let prefillTokenCount = 0;
  let prefillAttention = 0;
  for (const entry of entries) {
    tokenCount += entry.tokenIds.length;
    if (entry.kind === 'decode') {
      decodeSequenceCount += 1;
      decodeContextTokens += entry.contextLength;
    } else {
      prefillTokenCount += entry.tokenIds.length;
      prefillAttention += prefillAttentionOf(entry);
    }
  }
  return {
    tokenCount,
    decodeSequenceCount,
    prefillSequenceCount: entries.length - decodeSequenceCount,
    prefillTokenCount,
    decodeContextTokens,
    prefillAttention,
  };
}

/** b0 + b1 T + b2 (T - T0)+ + b3 B + b4 n + b5 C + b6 Q, milliseconds. */
export function predictMs(fit: StepTimeFit, features: StepFeatures): number {
  const beta = fit.betaMs;
  return (
    beta.perStep +
    linearLayersMs(fit, features.tokenCount) +
    beta.perDecodeSequence * features.decodeSequenceCount +
    beta.perPrefillSequence * features.prefillSequenceCount +
    beta.perDecodeContextToken * features.decodeContextTokens +
    beta.perPrefillAttention * features.prefillAttention
  );
}

/**
 * Splits a step's measured time over its entries, in their order; the shares sum to `deviceMs`. With a fit it is the
 * Aumann-Shapley split of the prediction, scaled to the measured time: the weight read b0 is a public good and shared
 * equally, the linear layers have one price per token, what is linear is charged at its marginal cost. Without a fit
 * (or where it predicts nothing) the time is split by tokens.
 */
export function chargeStep(
  entries: readonly TimedEntry[],
  deviceMs: number,
  fit: StepTimeFit | null,
): number[] {
  const features = featuresOf(entries);
  const predictedMs = fit === null ? 0 : predictMs(fit, features);
  if (fit === null || !(predictedMs > 0)) {
    return entries.map((entry) => (deviceMs * entry.tokenIds.length) / features.tokenCount);
  }
  const beta = fit.betaMs;
  const scale = deviceMs / predictedMs;
  const perTokenMs = linearLayersMs(fit, features.tokenCount) / features.tokenCount;
  return entries.map((entry) => {
    const ownMs =
      entry.kind === 'decode'
        ? beta.perDecodeSequence + beta.perDecodeContextToken * entry.contextLength
        : beta.perPrefillSequence + beta.perPrefillAttention * prefillAttentionOf(entry);
    return scale * (beta.perStep / entries.length + perTokenMs * entry.tokenIds.length + ownMs);
  });
}

function linearLayersMs(fit: StepTimeFit, tokenCount: number): number {
  const aboveKnee = Math.max(0, tokenCount - fit.kneeTokens);
  return fit.betaMs.perToken * tokenCount + fit.betaMs.perTokenAboveKnee * aboveKnee;
}

/** c * (p + c / 2): c tokens computed onto p already cached. */
function prefillAttentionOf(entry: TimedEntry): number {
  const chunk = entry.tokenIds.length;
  return chunk * (entry.contextLength + chunk / 2);
}
