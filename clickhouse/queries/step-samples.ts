/**
 * Measured steps for the fit of one (device kind, model, kernels): the newest of a span. Asked by the optimizer's service.
 * Serving and calibration steps only: the equality check's run beside live work.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { epochMs, inSpan, type Span, spanParams } from './measures.ts';

const sql = `
SELECT
  ${epochMs('startedAt')} AS at, kind, tokenCount, decodeSequenceCount, prefillSequenceCount, prefillTokenCount,
  decodeContextTokens, prefillAttention, deviceMs, foreignCpuShare
FROM steps
WHERE deviceKind = {deviceKind:String} AND modelHash = {modelHash:String} AND kernelsId = {kernelsId:String}
  AND kind IN ('serve', 'calibration') AND ${inSpan('startedAt')}
ORDER BY startedAt DESC
LIMIT {limit:UInt32}`;

const row = z.object({
  /** When it started, epoch ms. */
  at: z.number(),
  kind: z.enum(['serve', 'calibration']),
  tokenCount: z.number(),
  decodeSequenceCount: z.number(),
  prefillSequenceCount: z.number(),
  prefillTokenCount: z.number(),
  decodeContextTokens: z.number(),
  prefillAttention: z.number(),
  deviceMs: z.number(),
  foreignCpuShare: z.number(),
});
export type MeasuredStep = z.infer<typeof row>;

/** Newest first. */
export function stepSamples(
  client: TelemetryClient,
  question: Span & {
    readonly deviceKind: string;
    readonly modelHash: string;
    readonly kernelsId: string;
    readonly limit: number;
  },
): Promise<MeasuredStep[]> {
  const { deviceKind, modelHash, kernelsId, limit } = question;
  return client.query(sql, { ...spanParams(question), deviceKind, modelHash, kernelsId, limit }, row);
}
