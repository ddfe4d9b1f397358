/**
 * How short the KV cache was in a span: blocks that had to leave it, what was computed again, and how many blocks stood idle,
 * held for who might come back. Asked by the API's costs.ledger, which makes a price of it.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { epochMs, type Span, spanParams, startedSteps } from './measures.ts';

const sql = `
SELECT
  sum(recomputeMs) AS recomputeDeviceMs,
  sum(evicted) AS evictedBlockCount,
  sum(idleBlocks * seconds) AS idleBlockSeconds
FROM (
  SELECT
    sum(recomputeDeviceMs) AS recomputeMs,
    sum(evictedBlockCount) AS evicted,
    avg(toInt64(kvBlockCount) - toInt64(kvUsedBlockCount)) AS idleBlocks,
    (max(${epochMs('startedAt')} + deviceMs) - min(${epochMs('startedAt')})) / 1000 AS seconds
  FROM ${startedSteps.rows}
  GROUP BY workerId, bootId
)`;

const row = z.object({
  recomputeDeviceMs: z.number(),
  evictedBlockCount: z.number(),
  /** Blocks that nobody who ran held, times seconds. */
  idleBlockSeconds: z.number(),
});
export type KvPressure = z.infer<typeof row>;

export async function kvPressure(client: TelemetryClient, span: Span): Promise<KvPressure> {
  const [pressure] = await client.query(sql, spanParams(span), row);
  if (pressure === undefined) throw new Error('Aggregates over no rows are one row, but none came.');
  return pressure;
}
