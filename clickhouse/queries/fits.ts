/** The newest step-time fit of each (device kind, model, kernels). Asked by the optimizer's service when it starts. */
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import type { FitRow } from '../fit-row.ts';
import { epochMs } from './measures.ts';

const sql = `
SELECT
  fitId, deviceKind, modelHash, kernelsId, ${epochMs('fittedAt')} AS fittedAtMs, sampleCount, kneeTokens, betaMs,
  heldOutMape, heldOutCount, logBand90, residuals
FROM model_fits
ORDER BY fittedAt DESC
LIMIT 1 BY deviceKind, modelHash, kernelsId
LIMIT 1000`;

const coefficient = z.number().min(0);
const betaMs = z.object({
  perStep: coefficient,
  perToken: coefficient,
  perTokenAboveKnee: coefficient,
  perDecodeSequence: coefficient,
  perPrefillSequence: coefficient,
  perDecodeContextToken: coefficient,
  perPrefillAttention: coefficient,
});

const numbers = z.array(z.number());
const residuals = z.object({
  center: numbers,
  scale: numbers,
  places: numbers,
  weights: numbers,
  logRatios: numbers,
});

const row = z.object({
  fitId: z.string(),
  deviceKind: z.string(),
  modelHash: z.string(),
  kernelsId: z.string(),
  fittedAtMs: z.number(),
  sampleCount: z.number(),
  kneeTokens: z.number(),
  betaMs: z.string(),
  heldOutMape: z.number().nullable(),
  heldOutCount: z.number(),
  logBand90: z.number().nullable(),
  residuals: z.string(),
});

/** A fit as a row of `model_fits`. */
export function fitRow(fit: StepTimeFit): FitRow {
  return {
    ...fit,
    betaMs: JSON.stringify(fit.betaMs),
    residuals: fit.residuals === undefined ? '' : JSON.stringify(fit.residuals),
  };
}

/** Newest first. */
export async function latestFits(client: TelemetryClient): Promise<StepTimeFit[]> {
  const rows = await client.query(sql, {}, row);
  return rows.map(({ fittedAtMs, residuals: table, ...fit }) => ({
    ...fit,
    fittedAt: fittedAtMs,
    betaMs: betaMs.parse(JSON.parse(fit.betaMs)),
    ...(table === '' ? {} : { residuals: residuals.parse(JSON.parse(table)) }),
  }));
}
