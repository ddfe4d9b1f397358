/**
 * The synthetic steps that teach a step-time model of kernels nobody has served with yet: decodes, contexts, chunks and
 * mixtures, each term of the model on its own and together. Called by the service; the worker decides when they run.
 */
import type { Envelope } from '@variator/kernels/execution-path';
import { predictMs, type StepFeatures } from '@variator/scheduler/step-time';
import type { StepTimePrior } from './roofline-prior.ts';

export interface CalibrationShape {
  readonly decodeSequenceCount: number;
  readonly decodeContextTokens: number;
  readonly prefillTokens: number;
  readonly prefillContextTokens: number;
}

/** A case that should take longer would stand in a client's way, were one to come. */
const MOST_CASE_MS = 250;

const DECODES = [1, 2, 4, 8, 16, 32] as const;
const CONTEXTS = [32, 256, 768] as const;
const CHUNKS = [4, 8, 16, 32, 64, 128, 256, 512] as const;
const PREFIXES = [0, 256, 768] as const;

/** In an order whose every start is spread: a call that is cut short has still taught something of each term. */
export function calibrationCases(envelope: Envelope, prior: StepTimePrior): CalibrationShape[] {
  const decodes = DECODES.flatMap((count, row) =>
    CONTEXTS.map((context, column) => ({
      order: row + 2 * column,
      shape: { ...NOTHING, decodeSequenceCount: count, decodeContextTokens: count * context },
      reach: context + 1,
    })),
  );
  const chunks = CHUNKS.flatMap((chunk, row) =>
    PREFIXES.map((prefix, column) => ({
      order: 0.5 + row + 2 * column,
      shape: { ...NOTHING, prefillTokens: chunk, prefillContextTokens: prefix },
      reach: prefix + chunk,
    })),
  );
  const mixtures = [8, 32, 128].flatMap((chunk, row) =>
    [2, 8].map((count, column) => ({
      order: 1.5 + 2 * row + column,
      shape: {
        decodeSequenceCount: count,
        decodeContextTokens: count * 128,
        prefillTokens: chunk,
        prefillContextTokens: 64,
      },
      reach: 64 + chunk,
    })),
  );
  return [...decodes, ...chunks, ...mixtures]
    .filter(({ shape, reach }) => {
      const tokenCount = shape.decodeSequenceCount + shape.prefillTokens;
      return (
        shape.decodeSequenceCount <= envelope.maxRunningCount &&
        tokenCount <= envelope.maxTokenBudget &&
        reach <= envelope.maxModelLenTokens &&
        predictMs(prior, featuresOfShape(shape)) <= MOST_CASE_MS
      );
    })
    .sort((a, b) => a.order - b.order)
    .map(({ shape }) => shape);
}

const NOTHING: CalibrationShape = {
  decodeSequenceCount: 0,
  decodeContextTokens: 0,
  prefillTokens: 0,
  prefillContextTokens: 0,
};

export function featuresOfShape(shape: CalibrationShape): StepFeatures {
  const { decodeSequenceCount, decodeContextTokens, prefillTokens, prefillContextTokens } = shape;
  return {
    tokenCount: decodeSequenceCount + prefillTokens,
    decodeSequenceCount,
    prefillSequenceCount: prefillTokens > 0 ? 1 : 0,
    prefillTokenCount: prefillTokens,
    decodeContextTokens,
    prefillAttention: prefillTokens * (prefillContextTokens + prefillTokens / 2),
  };
}

/**
 * True when these steps leave batch shapes unseen that any search asks about: then a fit would answer from its prior.
 * `sampleCount` alone does not say: a worker that runs one sequence at a time yields thousands of equal steps.
 */
export function needsCalibration(steps: readonly StepFeatures[]): boolean {
  const kinds = new Set(
    steps.map((step) => {
      const tokens = Math.floor(Math.log2(Math.max(1, step.tokenCount)));
      return `${tokens} ${step.decodeSequenceCount > 0} ${step.prefillSequenceCount > 0}`;
    }),
  );
  const widest = steps.reduce((most, { tokenCount }) => Math.max(most, tokenCount), 0);
  return steps.length < LEAST_STEPS || kinds.size < LEAST_KINDS || widest < LEAST_WIDEST_TOKENS;
}
const LEAST_STEPS = 30;
const LEAST_KINDS = 8;
/** A live path with a small budget never shows what a larger one would cost; above the knee a prior would answer. */
const LEAST_WIDEST_TOKENS = 256;
