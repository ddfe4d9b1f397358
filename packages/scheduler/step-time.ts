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
  /** Half-width of the 90 % band of log(measured / predicted): of held-out steps, then of the steps since. */
  readonly logBand90: number | null;
  /** What the seven terms leave near batches that were seen; absent while there are few. */
  readonly residuals?: StepTimeResiduals;
}

/**
 * Steps that lie together, and how far off the seven terms are there: tile steps, captured graphs, caches. Places are
 * (B, C, prefill tokens, n, Q), each as (log(1 + x) - center) / scale. At most MOST_RESIDUALS of them.
 */
export interface StepTimeResiduals {
  readonly center: readonly number[];
  readonly scale: readonly number[];
  /** [count][5], row after row. */
  readonly places: readonly number[];
  /** [count] how many steps speak for it, by their trust. */
  readonly weights: readonly number[];
  /** [count] log(measured / seven terms). */
  readonly logRatios: readonly number[];
}

/** What a prediction reads of a fit. */
export type StepTimeModel = Pick<StepTimeFit, 'betaMs' | 'kneeTokens' | 'residuals'>;

/** Each is looked at in every prediction. */
export const MOST_RESIDUALS = 128;
/** Distance, in spreads of the samples, at which a residual counts a quarter. */
const RESIDUAL_REACH = 0.3;
const SQUARED_REACH = RESIDUAL_REACH ** 2;
/** Figures of a place. */
const PLACE_SIZE = 5;
/** So many steps' worth of doubt pull every correction to none; far from all that was seen nothing else is left. */
const RESIDUAL_DOUBT = 3;
/** A correction larger than this, as a log ratio, is not believed. */
const MOST_CORRECTION = 0.5;

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

/** The seven terms, corrected by what they leave near such a batch; milliseconds. */
export function predictMs(fit: StepTimeModel, features: StepFeatures): number {
  return sevenTermsMs(fit, features) * correctionFactor(fit, features);
}

/** What to multiply the seven terms with near such a batch; 1 without residuals, and far from all of them. */
export function correctionFactor(fit: StepTimeModel, features: StepFeatures): number {
  return fit.residuals === undefined ? 1 : Math.exp(correctionOf(fit.residuals, features));
}

/** b0 + b1 T + b2 (T - T0)+ + b3 B + b4 n + b5 C + b6 Q, milliseconds: never falls when a feature grows. */
export function sevenTermsMs(fit: StepTimeModel, features: StepFeatures): number {
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

/** Where a batch lies among the residuals, before center and scale. */
export function residualPlace(features: StepFeatures): [number, number, number, number, number] {
  return [
    Math.log1p(features.decodeSequenceCount),
    Math.log1p(features.decodeContextTokens),
    Math.log1p(features.prefillTokenCount),
    Math.log1p(features.prefillSequenceCount),
    Math.log1p(features.prefillAttention),
  ];
}

interface PackedResiduals {
  readonly places: Float64Array;
  readonly weights: Float64Array;
}

/** Every prediction walks over them: as typed arrays, once for each fit. */
const packed = new WeakMap<StepTimeResiduals, PackedResiduals>();

function packedOf(residuals: StepTimeResiduals): PackedResiduals {
  const known = packed.get(residuals);
  if (known !== undefined) return known;
  const fresh = {
    places: Float64Array.from(residuals.places),
    weights: Float64Array.from(residuals.weights),
  };
  packed.set(residuals, fresh);
  return fresh;
}

/** The nearest residuals' mean, less the fewer steps lie near: 0 far from all of them. */
function correctionOf(residuals: StepTimeResiduals, features: StepFeatures): number {
  const { center, scale, logRatios } = residuals;
  const place = residualPlace(features);
  for (let k = 0; k < PLACE_SIZE; k += 1) {
    place[k] = ((place[k] ?? 0) - (center[k] ?? 0)) / (scale[k] ?? 1);
  }
  const [a, b, c, d, e] = place;
  const { places, weights } = packedOf(residuals);
  let weight = RESIDUAL_DOUBT;
  let sum = 0;
  for (let index = 0, at = 0; index < weights.length; index += 1, at += PLACE_SIZE) {
    const apartA = a - (places[at] ?? 0);
    const apartB = b - (places[at + 1] ?? 0);
    const apartC = c - (places[at + 2] ?? 0);
    const apartD = d - (places[at + 3] ?? 0);
    const apartE = e - (places[at + 4] ?? 0);
    const squared = apartA * apartA + apartB * apartB + apartC * apartC + apartD * apartD + apartE * apartE;
    const nearness = SQUARED_REACH / (SQUARED_REACH + squared);
    const own = (weights[index] ?? 0) * nearness * nearness;
    weight += own;
    sum += own * (logRatios[index] ?? 0);
  }
  return Math.min(MOST_CORRECTION, Math.max(-MOST_CORRECTION, sum / weight));
}

/**
 * Splits a step's measured time over its entries, in their order; the shares sum to `deviceMs`. With a fit it is the
 * Aumann-Shapley split of the seven terms, scaled to the measured time: the weight read b0 is a public good and shared
 * equally, the linear layers have one price per token, what is linear is charged at its marginal cost. Without a fit
 * (or where it predicts nothing) the time is split by tokens.
 */
export function chargeStep(
  entries: readonly TimedEntry[],
  deviceMs: number,
  fit: StepTimeFit | null,
): number[] {
  const features = featuresOf(entries);
  const predictedMs = fit === null ? 0 : sevenTermsMs(fit, features);
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

/** What `chargeStep` charges for each of a step's tokens alone, the rest of its entry apart; milliseconds. */
export function chargedPerTokenMs(features: StepFeatures, deviceMs: number, fit: StepTimeFit | null): number {
  const predictedMs = fit === null ? 0 : sevenTermsMs(fit, features);
  if (fit === null || !(predictedMs > 0)) return deviceMs / features.tokenCount;
  return (deviceMs / predictedMs) * (linearLayersMs(fit, features.tokenCount) / features.tokenCount);
}

/** What computing so many prompt tokens onto so many cached ones adds to steps, however it is chunked; above the knee. */
export function prefillWorkMs(fit: StepTimeFit, contextLength: number, tokenCount: number): number {
  const { perToken, perTokenAboveKnee, perPrefillAttention } = fit.betaMs;
  const attention = tokenCount * (contextLength + tokenCount / 2);
  return (perToken + perTokenAboveKnee) * tokenCount + perPrefillAttention * attention;
}

function linearLayersMs(fit: StepTimeModel, tokenCount: number): number {
  const aboveKnee = Math.max(0, tokenCount - fit.kneeTokens);
  return fit.betaMs.perToken * tokenCount + fit.betaMs.perTokenAboveKnee * aboveKnee;
}

/** c * (p + c / 2): c tokens computed onto p already cached. */
function prefillAttentionOf(entry: TimedEntry): number {
  const chunk = entry.tokenIds.length;
  return chunk * (entry.contextLength + chunk / 2);
}
