/**
 * From when to when each worker was seen at work in a span. Asked by the API's costs.ledger, for what was available. A span
 * of more than 48 h is that of the whole hours (UTC) that it touches.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { epochMs, type Span, spanParams, startedSteps } from './measures.ts';
import { type Source, sourceOf } from './source-of.ts';

const bounds: Readonly<Record<Source, string>> = {
  rows: `min(${epochMs('startedAt')}) AS fromMs, max(${epochMs('startedAt')} + deviceMs) AS toMs`,
  hours: `min(${epochMs('firstStartedAt')}) AS fromMs, max(${epochMs('lastStartedAt')}) AS toMs`,
};

const sqlFor = (source: Source): string => `
SELECT workerId, ${bounds[source]}
FROM ${startedSteps[source]}
GROUP BY workerId
ORDER BY workerId`;

const row = z.object({ workerId: z.string(), fromMs: z.number(), toMs: z.number() });
export type WorkerSpan = z.infer<typeof row>;

export function workerSpans(
  client: TelemetryClient,
  question: Span & { readonly now: number },
): Promise<WorkerSpan[]> {
  const span = sourceOf(question, question.now);
  return client.query(sqlFor(span.source), spanParams(span), row);
}
