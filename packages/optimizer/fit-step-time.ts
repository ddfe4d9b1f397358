/**
 * Fits the seven-term step-time model of one (device kind, model, kernelsId) to measured steps: non-negative, robust, in
 * relative error, held to a prior (algorithms.md a). Called by the optimizer's service and by benches. Prediction itself
 * lives in packages/scheduler/step-time.ts; this file refuses to know about time or storage.
 *
 *   minimise  sum_j w_j ((y_j - x_j b) / y_j)^2 + L sum_k ((b_k - prior_k) / prior_k)^2,  b >= 0,  w = Huber
 */
import { createHash } from 'node:crypto';
import {
  predictMs,
  type StepFeatures,
  type StepTimeFit,
  type StepTimeModel,
} from '@variator/scheduler/step-time';
import { solveNonNegative } from './nnls.ts';
import { median, quantile, robustSpread } from './quantile.ts';
import { KNEES, type StepTimePrior } from './roofline-prior.ts';
import { residualsOf } from './step-residuals.ts';
import { isQuiet, keepSamples, type StepSample, trustIn } from './step-sample.ts';

export interface FitQuestion {
  /** In any order and number; the newest of each bucket are used. */
  readonly samples: readonly StepSample[];
  /** The roofline's, or the fit of the path this one comes from. */
  readonly prior: StepTimePrior;
  readonly deviceKind: string;
  readonly modelHash: string;
  readonly kernelsId: string;
  readonly now: number;
  /** Half-width that later steps have kept; without it that of the held-out steps. */
  readonly logBand90?: number | null;
}

/**
 * Pull towards the prior: as for few samples at first (prior sd about 17 % at 3 % noise), then in step with their number.
 * What seven terms cannot say does not average out, so ever more steps of one regime must not argue a term away that another
 * regime needs: with a pull that fades, fits of chats were 25 % off on agents, with this one 7 % (docs/optimizer.md).
 */
const LEAST_RIDGE = 0.03;
const RIDGE_PER_SAMPLE = 0.003;
/** What a knee an octave from the prior's must gain, per sample, in the loss: about the square of 2 %. */
const KNEE_DOUBT = 0.0005;
const MOST_DISTRUST = 8;
const HUBER_ROUNDS = 4;
const HUBER_CUT = 1.345;
/** Below this the prior is only scaled as a whole. */
export const LEAST_SAMPLE_COUNT = 10;

type Betas = StepTimeFit['betaMs'];
const TERMS = [
  'perStep',
  'perToken',
  'perTokenAboveKnee',
  'perDecodeSequence',
  'perPrefillSequence',
  'perDecodeContextToken',
  'perPrefillAttention',
] as const satisfies readonly (keyof Betas)[];

export function fitStepTime(question: FitQuestion): StepTimeFit {
  const kept = keepSamples(question.samples);
  const identity = {
    deviceKind: question.deviceKind,
    modelHash: question.modelHash,
    kernelsId: question.kernelsId,
  };
  const named = (model: StepTimeModel, heldOut: readonly StepSample[]): StepTimeFit => {
    const fit = {
      ...identity,
      fitId: '',
      fittedAt: question.now,
      sampleCount: kept.length,
      kneeTokens: model.kneeTokens,
      betaMs: rounded(model.betaMs),
      ...(model.residuals === undefined ? {} : { residuals: model.residuals }),
      ...heldOutError(model, heldOut),
    };
    const known = { ...fit, logBand90: question.logBand90 ?? fit.logBand90 };
    return { ...known, fitId: fitIdOf(known) };
  };

  if (kept.length < LEAST_SAMPLE_COUNT) {
    const ratios = kept.map((sample) => sample.deviceMs / predictMs(question.prior, sample));
    return named(scaled(question.prior, ratios.length === 0 ? 1 : median(ratios)), []);
  }
  const heldOut = kept.filter(isHeldOut);
  const training = kept.filter((sample) => !isHeldOut(sample));
  let best: { loss: number; model: StepTimePrior } | null = null;
  for (const kneeTokens of [...new Set([...KNEES, question.prior.kneeTokens])].sort((a, b) => a - b)) {
    if (best !== null && !isIdentified(training, kneeTokens)) continue;
    const solved = fitWithKnee(training, question.prior.betaMs, kneeTokens);
    const octaves = Math.abs(Math.log2(kneeTokens / question.prior.kneeTokens));
    const loss = solved.loss + KNEE_DOUBT * solved.trusted * octaves;
    if (best === null || loss < best.loss * (1 - 1e-6)) {
      best = { loss, model: { betaMs: solved.betaMs, kneeTokens } };
    }
  }
  const model = best?.model ?? question.prior;
  return named({ ...model, residuals: residualsOf(model, training) }, heldOut);
}

/**
 * Whether steps show what a token costs above this knee. Where none is clearly above it the term would stay at its prior,
 * on top of a slope below that already explains every step: any larger step would be predicted far too slow.
 */
function isIdentified(samples: readonly StepSample[], kneeTokens: number): boolean {
  const aboveCount = samples.filter(({ tokenCount }) => tokenCount >= 1.5 * kneeTokens).length;
  return aboveCount >= Math.max(5, 0.05 * samples.length);
}

/** The seven terms' factors in the order of TERMS: 1, T, (T - T0)+, B, n, C, Q. */
function factorsOf(features: StepFeatures, kneeTokens: number): number[] {
  return [
    1,
    features.tokenCount,
    Math.max(0, features.tokenCount - kneeTokens),
    features.decodeSequenceCount,
    features.prefillSequenceCount,
    features.decodeContextTokens,
    features.prefillAttention,
  ];
}

function fitWithKnee(
  samples: readonly StepSample[],
  prior: Betas,
  kneeTokens: number,
): { loss: number; betaMs: Betas; trusted: number } {
  const factors = samples.map((sample) => factorsOf(sample, kneeTokens));
  const scales = termScales(samples, factors, prior);
  // In units of the prior: every unknown is about 1 and the ridge is the same for all.
  const targets = TERMS.map((term) => prior[term] / (scales.get(term) ?? 1));
  const rows = samples.map((sample, j) =>
    TERMS.map((term, k) => ((factors[j]?.[k] ?? 0) * (scales.get(term) ?? 0)) / sample.deviceMs),
  );
  const residualsOf = (unknowns: readonly number[]): number[] =>
    rows.map((row) => 1 - row.reduce((sum, value, k) => sum + value * (unknowns[k] ?? 0), 0));

  const trusts = samples.map(trustIn);
  const trusted = trusts.reduce((sum, trust) => sum + trust, 0);
  let unknowns = [...targets];
  let cut = Number.POSITIVE_INFINITY;
  for (let round = 0; round <= HUBER_ROUNDS; round += 1) {
    const residuals = residualsOf(unknowns);
    const weights = residuals.map((residual, j) => (trusts[j] ?? 0) * Math.min(1, cut / Math.abs(residual)));
    unknowns = solveNonNegative(...normalEquations(rows, weights, targets, ridgesOf(unknowns, trusted)));
    cut = HUBER_CUT * Math.max(1e-3, robustSpread(residualsOf(unknowns)));
  }
  const ridges = ridgesOf(unknowns, trusted);
  const ridge = unknowns.reduce(
    (sum, value, k) => sum + (ridges[k] ?? 0) * (value - (targets[k] ?? 0)) ** 2,
    0,
  );
  // Compared between knees by one robust measure; each knee's own cut would reward a wide spread.
  const losses = residualsOf(unknowns).map((residual, j) => (trusts[j] ?? 0) * pseudoHuber(residual));
  const loss = losses.reduce((sum, one) => sum + one, 0) + ridge;
  const betaMs = Object.fromEntries(
    TERMS.map((term, k) => [term, (unknowns[k] ?? 0) * (scales.get(term) ?? 0)]),
  ) as Record<keyof Betas, number>;
  return { loss, betaMs, trusted };
}

/** Quadratic near zero, linear above about 5 %. */
const pseudoHuber = (residual: number): number => 2 * 0.05 ** 2 * (Math.hypot(1, residual / 0.05) - 1);

/** A term's unit: its prior; where the prior is 0, what would explain a whole typical step. */
function termScales(
  samples: readonly StepSample[],
  factors: readonly (readonly number[])[],
  prior: Betas,
): Map<keyof Betas, number> {
  const typicalMs = median(samples.map((sample) => sample.deviceMs));
  return new Map(
    TERMS.map((term, k) => {
      const mean = factors.reduce((sum, row) => sum + (row[k] ?? 0), 0) / factors.length;
      return [term, prior[term] > 0 ? prior[term] : typicalMs / Math.max(mean, 1)];
    }),
  );
}

/**
 * A term that measures several times its prior has disproved it: the pull is then relative to the measured value. Without
 * this a kernel that is five times slower than the roofline would be dragged back until hundreds of samples came.
 */
function ridgesOf(unknowns: readonly number[], trusted: number): number[] {
  const ridge = Math.max(LEAST_RIDGE, RIDGE_PER_SAMPLE * trusted);
  return unknowns.map((value) => ridge / Math.min(MOST_DISTRUST, Math.max(1, value)) ** 2);
}

function normalEquations(
  rows: readonly (readonly number[])[],
  weights: readonly number[],
  targets: readonly number[],
  ridges: readonly number[],
): [number[][], number[]] {
  const gram = targets.map((_, k) => targets.map((_, l) => (k === l ? (ridges[k] ?? 0) : 0)));
  const moment = targets.map((target, k) => (ridges[k] ?? 0) * target);
  rows.forEach((row, j) => {
    const weight = weights[j] ?? 0;
    row.forEach((value, k) => {
      moment[k] = (moment[k] ?? 0) + weight * value;
      const gramRow = gram[k];
      if (gramRow === undefined) return;
      row.forEach((other, l) => {
        gramRow[l] = (gramRow[l] ?? 0) + weight * value * other;
      });
    });
  });
  return [gram, moment];
}

/** Every fifth by its content, so that a step stays held out in every later fit. */
function isHeldOut(sample: StepSample): boolean {
  const text = `${sample.at}/${sample.deviceMs}/${sample.tokenCount}/${sample.decodeContextTokens}`;
  return createHash('sha256').update(text).digest().readUInt32BE(0) % 5 === 0;
}

/** Undisturbed steps where there are enough: others measure the neighbours' work as well. */
const LEAST_QUIET_COUNT = 10;

function heldOutError(
  model: StepTimeModel,
  all: readonly StepSample[],
): Pick<StepTimeFit, 'heldOutMape' | 'heldOutCount' | 'logBand90'> {
  const quiet = all.filter(isQuiet);
  const heldOut = quiet.length >= LEAST_QUIET_COUNT ? quiet : all;
  if (heldOut.length === 0) return { heldOutMape: null, heldOutCount: 0, logBand90: null };
  const predicted = heldOut.map((sample) => ({ sample, ms: predictMs(model, sample) }));
  const relative = predicted.map(({ sample, ms }) => Math.abs(ms - sample.deviceMs) / sample.deviceMs);
  const logs = predicted.map(({ sample, ms }) => Math.abs(Math.log(sample.deviceMs / ms)));
  return {
    heldOutMape: relative.reduce((sum, error) => sum + error, 0) / relative.length,
    heldOutCount: heldOut.length,
    logBand90: quantile(logs, 0.9),
  };
}

function scaled(prior: StepTimePrior, scale: number): StepTimePrior {
  const betaMs = Object.fromEntries(TERMS.map((term) => [term, prior.betaMs[term] * scale]));
  return { ...prior, betaMs: betaMs as Record<keyof Betas, number> };
}

/** Six digits say all that a measurement can, and keep equal fits equal. */
function rounded(betaMs: Betas): Betas {
  const entries = TERMS.map((term) => [term, Number(betaMs[term].toPrecision(6))]);
  return Object.fromEntries(entries) as Record<keyof Betas, number>;
}

/** Names a fit by what it says; the time it was made is not part of it. */
function fitIdOf(fit: Omit<StepTimeFit, 'fitId'>): string {
  const { fittedAt: _, ...content } = fit;
  return createHash('sha256').update(JSON.stringify(content)).digest('hex').slice(0, 12);
}
