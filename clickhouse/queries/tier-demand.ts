/**
 * How much device time each tier asks for, and how much at its peaks: the 95th percentile of buckets, those without any
 * request of it counted as none. Asked by the API's costs.ledger, which shares idle time out by it.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { endedAtMs, endedRequests, type Span, spanParams } from './measures.ts';
import { sourceOf } from './source-of.ts';

/** A minute or more; few enough to be quick over months. */
const MOST_BUCKETS = 1440;
const MINUTE_MS = 60_000;

const sql = `
SELECT
  serviceTier,
  sum(bucketMs) AS deviceMs,
  -- The place of the 95th percentile among all buckets of the span, those without a row being the smallest.
  arrayElement(arrayReverseSort(groupArray(bucketMs)), intDiv({bucketCount:UInt32}, 20) + 1) AS peakDeviceMs
FROM (
  SELECT
    serviceTier,
    floor((${endedAtMs} - {fromMs:Int64}) / {bucketMs:UInt32}) AS bucket,
    sum(prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs) AS bucketMs
  FROM ${endedRequests.rows}
  GROUP BY serviceTier, bucket
)
GROUP BY serviceTier
ORDER BY serviceTier`;

const row = z.object({
  serviceTier: z.enum(['priority', 'default', 'flex']),
  deviceMs: z.number(),
  /** 0 where a tier asks for anything in less than one bucket of twenty. */
  peakDeviceMs: z.number(),
});
export type TierDemandRow = z.infer<typeof row>;

export function tierDemand(
  client: TelemetryClient,
  question: Span & { readonly now: number },
): Promise<TierDemandRow[]> {
  const span = sourceOf(question, question.now);
  const spanMs = span.toMs - span.fromMs;
  const bucketMs = Math.ceil(Math.max(MINUTE_MS, spanMs / MOST_BUCKETS));
  const bucketCount = Math.ceil(spanMs / bucketMs);
  return client.query(sql, { ...spanParams(span), bucketMs, bucketCount }, row);
}
