/**
 * What clients may send, as strict and bounded zod schemas, typed by the nouns they parse to. Used by the noun files.
 * Checks shapes only; whether a path is legal on a worker is asked of its envelope.
 */
import {
  type AttentionVariantId,
  catalogue,
  type LinearVariantId,
  splitTokensRange,
  type Variant,
} from '@variator/kernels/catalogue';
import { type ExecutionPath, pathSettings } from '@variator/kernels/execution-path';
import { MEASURED_TILES } from '@variator/kernels/tiles';
import {
  type Estimate,
  type MetricName,
  MOST_CONSIDERED,
  type ProposalDraft,
} from '@variator/optimizer/proposal';
import { MOST_RESIDUALS, type StepTimeFit, type StepTimeResiduals } from '@variator/scheduler/step-time';
import { z } from 'zod';
import type { CalibrationCase } from '../fleet/link-frames.ts';
import type { RegimeMark } from './contract.ts';

export const identifier = z.string().min(1).max(128);
export const listLimit = z.strictObject({ limit: z.number().int().min(1).max(200).default(50) });
const atMs = z.number().min(0).max(8.64e15);
const count = (most: number) => z.number().int().min(0).max(most);
const sentence = (most: number) => z.string().max(most);

const isForward = ({ fromMs, toMs }: { fromMs: number; toMs: number }): boolean => fromMs < toMs;
const backward = { error: 'fromMs must be before toMs' };

export const span = z.strictObject({ fromMs: atMs, toMs: atMs }).refine(isForward, backward);
export const groupedSpan = z
  .strictObject({ fromMs: atMs, toMs: atMs, by: z.enum(['model', 'tier', 'tenant', 'session', 'program']) })
  .refine(isForward, backward);

export const predictionsQuestion = z
  .strictObject({
    fromMs: atMs,
    toMs: atMs,
    kernels: z
      .strictObject({ deviceKind: identifier, modelHash: identifier, kernelsId: identifier })
      .nullable()
      .default(null),
  })
  .refine(isForward, backward);

function variantId<Id extends LinearVariantId | AttentionVariantId>(operation: Variant['operation']) {
  const ids = catalogue.flatMap((variant) => (variant.operation === operation ? [variant.id] : []));
  return z.custom<Id>((value) => ids.some((id) => id === value), {
    error: `must be one of ${ids.join(', ')}`,
  });
}

export const executionPath: z.ZodType<ExecutionPath> = z.strictObject({
  linear: variantId<LinearVariantId>('linear'),
  attention: variantId<AttentionVariantId>('attention'),
  threadCount: z.number().int().min(1).max(4096),
  tokenBudget: z.number().int().min(1).max(1_000_000),
  maxRunningCount: z.number().int().min(1).max(1_000_000),
  draftTokenCount: z.number().int().min(0).max(1000).default(0),
  tiles: z.string().min(1).max(200).default(MEASURED_TILES),
  splitTokens: z.number().int().min(1).max(1_000_000).default(splitTokensRange.usual),
});

const estimate: z.ZodType<Estimate> = z.strictObject({
  value: z.number(),
  low: z.number(),
  high: z.number(),
});

const metricNames: Record<MetricName, MetricName> = {
  deviceMsPerRequest: 'deviceMsPerRequest',
  tokensPerSecond: 'tokensPerSecond',
  ttftP50Ms: 'ttftP50Ms',
  ttftP95Ms: 'ttftP95Ms',
  itlP50Ms: 'itlP50Ms',
  itlP99Ms: 'itlP99Ms',
  costUsdPerMillionTokens: 'costUsdPerMillionTokens',
};

const pathChanges = z
  .array(
    z.strictObject({
      setting: z.enum(pathSettings),
      from: z.union([z.string().max(200), z.number()]),
      to: z.union([z.string().max(200), z.number()]),
    }),
  )
  .max(16);

const consideredPaths = z
  .array(
    z.strictObject({
      changes: pathChanges,
      metrics: z
        .array(
          z.strictObject({
            metric: z.enum(metricNames),
            value: z.number(),
            interval: z.strictObject({ low: z.number(), high: z.number() }).nullable(),
          }),
        )
        .max(16),
      keepsObjectives: z.boolean(),
    }),
  )
  .max(MOST_CONSIDERED);

export const proposalDraft: z.ZodType<ProposalDraft> = z.strictObject({
  workerId: identifier,
  from: executionPath,
  to: executionPath,
  changes: pathChanges,
  aim: z.enum(['deviceMs', 'itl', 'goodAnswers']).default('deviceMs'),
  title: z.string().min(1).max(300),
  reason: z.string().min(1).max(4000),
  metrics: z
    .array(
      z.strictObject({
        metric: z.enum(metricNames),
        now: estimate,
        predicted: estimate,
        change: estimate,
      }),
    )
    .max(16),
  evidence: z.strictObject({
    windowStartedAt: atMs,
    windowEndedAt: atMs,
    requestCount: count(1e12),
    stepCount: count(1e12),
    regimeId: sentence(128),
    regimeName: sentence(300),
    fitIds: z.array(z.string().max(128)).max(64),
    considered: consideredPaths.exactOptional(),
    replayedLogCost: z.number().exactOptional(),
    replayedLogGoodAnswers: z.number().exactOptional(),
    earlierGaps: z
      .strictObject({
        count: z.number().min(0).max(1e9),
        lateCount: z.number().min(0).max(1e9),
        objectiveMs: z.number().min(0).max(1e9),
        canaryCount: count(1e6),
        lastAt: atMs,
      })
      .exactOptional(),
  }),
});

const milliseconds = z.number().min(0).max(1e9);

const measures = z.number().min(-1e6).max(1e6);

/** Its places are all looked at in every prediction: more than these would slow every step. */
const stepTimeResiduals: z.ZodType<StepTimeResiduals> = z
  .strictObject({
    center: z.array(measures).length(5),
    scale: z.array(z.number().positive().max(1e6)).length(5),
    places: z.array(measures).max(5 * MOST_RESIDUALS),
    weights: z.array(z.number().min(0).max(1e6)).max(MOST_RESIDUALS),
    logRatios: z.array(measures).max(MOST_RESIDUALS),
  })
  .refine(
    ({ places, weights, logRatios }) =>
      weights.length === logRatios.length && places.length === 5 * logRatios.length,
    'places, weights and logRatios must tell of equally many places, five numbers a place',
  );

export const stepTimeFit: z.ZodType<StepTimeFit> = z.strictObject({
  fitId: identifier,
  deviceKind: identifier,
  modelHash: identifier,
  kernelsId: identifier,
  fittedAt: atMs,
  sampleCount: count(1e12),
  kneeTokens: z.number().min(0).max(1e9),
  betaMs: z.strictObject({
    perStep: milliseconds,
    perToken: milliseconds,
    perTokenAboveKnee: milliseconds,
    perDecodeSequence: milliseconds,
    perPrefillSequence: milliseconds,
    perDecodeContextToken: milliseconds,
    perPrefillAttention: milliseconds,
  }),
  heldOutMape: z.number().min(0).max(1e6).nullable(),
  heldOutCount: count(1e12),
  logBand90: z.number().min(0).max(1e6).nullable(),
  residuals: stepTimeResiduals.exactOptional(),
});

export const regimeMark: z.ZodType<RegimeMark> = z.strictObject({
  regimeId: identifier,
  name: sentence(300),
  startedAt: atMs,
  detectedAt: atMs,
  endedAt: atMs.nullable(),
  isConfirmed: z.boolean(),
});

export const calibrationCases: z.ZodType<readonly CalibrationCase[]> = z
  .array(
    z.strictObject({
      decodeSequenceCount: count(4096),
      decodeContextTokens: count(100_000_000),
      prefillTokens: count(1_000_000),
      prefillContextTokens: count(100_000_000),
    }),
  )
  .min(1)
  .max(64);
