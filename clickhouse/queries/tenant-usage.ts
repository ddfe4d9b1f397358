/**
 * What each tenant used in a span, by model and tier: what a bill stands on. Asked by the API's costs.byTenant. Of the
 * requests that ended in it; a span of more than 48 h is counted in the whole hours (UTC) that it touches.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { endedRequests, inSpan, isServed, requestCount, type Span, spanParams } from './measures.ts';
import { type Source, sourceOf } from './source-of.ts';

const MOST_TENANT_ROWS = 10_000;

const requests: Readonly<Record<Source, string>> = {
  rows: `
    SELECT *, prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs AS deviceMs
    FROM ${endedRequests.rows}`,
  hours: `SELECT * FROM tenants_hourly WHERE ${isServed} AND ${inSpan('hour')}`,
};

const sqlFor = (source: Source): string => `
SELECT
  tenant, modelId, serviceTier,
  ${requestCount[source]} AS requestCount,
  sum(promptTokenCount) AS promptTokenCount,
  sum(cachedTokenCount) AS cachedTokenCount,
  sum(completionTokenCount) AS completionTokenCount,
  sum(deviceMs) AS deviceMs
FROM (${requests[source]})
GROUP BY tenant, modelId, serviceTier
ORDER BY sum(deviceMs) DESC, tenant, modelId, serviceTier
LIMIT ${MOST_TENANT_ROWS}`;

const row = z.object({
  tenant: z.string(),
  modelId: z.string(),
  serviceTier: z.enum(['priority', 'default', 'flex']),
  requestCount: z.number(),
  /** Cached ones included. */
  promptTokenCount: z.number(),
  cachedTokenCount: z.number(),
  completionTokenCount: z.number(),
  /** All that was charged to its requests. */
  deviceMs: z.number(),
});
export type TenantUsage = z.infer<typeof row>;

/** Those that used most device time first; at most 10,000. */
export function tenantUsage(
  client: TelemetryClient,
  question: Span & { readonly now: number },
): Promise<TenantUsage[]> {
  const span = sourceOf(question, question.now);
  return client.query(sqlFor(span.source), spanParams(span), row);
}
