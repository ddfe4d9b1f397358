/**
 * A fair sample of a span's served steps, with the features a fit predicts them from. Asked by the API's costs.ledger,
 * which learns from it how much of a charge is marginal. Which steps it takes depends on their ids alone.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { inSpan, type Span, spanParams } from './measures.ts';

const MOST_STEPS = 2000;

const sql = `
SELECT
  deviceKind, modelHash, kernelsId, tokenCount, decodeSequenceCount, prefillSequenceCount, prefillTokenCount,
  decodeContextTokens, prefillAttention, deviceMs
FROM steps
WHERE ${inSpan('startedAt')} AND kind = 'serve'
ORDER BY cityHash64(bootId, stepId)
LIMIT ${MOST_STEPS}`;

const row = z.object({
  deviceKind: z.string(),
  modelHash: z.string(),
  kernelsId: z.string(),
  tokenCount: z.number(),
  decodeSequenceCount: z.number(),
  prefillSequenceCount: z.number(),
  prefillTokenCount: z.number(),
  decodeContextTokens: z.number(),
  prefillAttention: z.number(),
  deviceMs: z.number(),
});
export type SampledStep = z.infer<typeof row>;

export function stepSample(client: TelemetryClient, span: Span): Promise<SampledStep[]> {
  return client.query(sql, spanParams(span), row);
}
