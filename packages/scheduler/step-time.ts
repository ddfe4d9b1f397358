/**
 * The step-time model's features, its prediction, and the charging of measured device ms to sequences. Pure.
 * Fitting lives in packages/optimizer; worker, gateway and the virtual clock use this file with a fit that arrives as
 * data. Formulas: T tokens, B decoding sequences, n prefilling sequences, C decode context tokens, Q prefill attention.
 */

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
