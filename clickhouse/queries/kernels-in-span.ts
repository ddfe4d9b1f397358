/**
 * Which kernels served in a span, and how many of their steps a fit had foretold; most steps first. Asked by the API's
 * fits.predictions, whose picture is of one of them.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { inSpan, type Span, spanParams } from './measures.ts';

const sql = `
SELECT deviceKind, modelHash, kernelsId, count() AS stepCount, countIf(predictedMs > 0) AS predictedStepCount
FROM steps
WHERE ${inSpan('startedAt')} AND kind = 'serve'
GROUP BY deviceKind, modelHash, kernelsId
ORDER BY stepCount DESC, kernelsId
LIMIT 50`;

const row = z.object({
  deviceKind: z.string(),
  modelHash: z.string(),
  kernelsId: z.string(),
  stepCount: z.number(),
  predictedStepCount: z.number(),
});
export type KernelsInSpan = z.infer<typeof row>;

export function kernelsInSpan(client: TelemetryClient, span: Span): Promise<KernelsInSpan[]> {
  return client.query(sql, spanParams(span), row);
}
