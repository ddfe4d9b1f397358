/** Time to first token of the streamed requests that arrived in a span. Asked by the ledger, before and after a rollout. */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { figure, inSpan, isServed, type Span, spanParams, ttftQuantiles } from './measures.ts';

const sql = `
SELECT
  countIf(ttftMs > 0 AND isStreamed) AS requestCount,
  if(requestCount = 0, NULL, ${ttftQuantiles('rows', 0.5, 0.95)}[1]) AS ttftP50Ms,
  if(requestCount = 0, NULL, ${ttftQuantiles('rows', 0.5, 0.95)}[2]) AS ttftP95Ms
FROM requests
WHERE ${isServed} AND ${inSpan('arrivedAt')}`;

const row = z.object({ requestCount: z.number(), ttftP50Ms: figure, ttftP95Ms: figure });

/** Percentiles are null where no streamed request of the span has a row. */
export async function ttft(client: TelemetryClient, span: Span): Promise<z.infer<typeof row>> {
  const [found] = await client.query(sql, spanParams(span), row);
  return found ?? { requestCount: 0, ttftP50Ms: null, ttftP95Ms: null };
}
