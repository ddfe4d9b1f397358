/**
 * The regimes that a span saw, the one that was on when it began included. Asked by the API's regimes and overview. A
 * mark lasts until the next one starts; a later row of the same regimeId and startedAt replaces an earlier one.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { type Span, spanParams } from './measures.ts';

const sql = `
SELECT regimeId, name, startedAtMs AS startedAt, detectedAtMs AS detectedAt, endedAt, isConfirmed
FROM (
  SELECT
    regimeId,
    toUnixTimestamp64Micro(startedAt) / 1000 AS startedAtMs,
    argMax(name, (isConfirmed, detectedAt)) AS name,
    toUnixTimestamp64Micro(min(detectedAt)) / 1000 AS detectedAtMs,
    max(isConfirmed) AS isConfirmed,
    leadInFrame(toNullable(startedAtMs)) OVER (
      ORDER BY startedAtMs, detectedAtMs ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) AS endedAt
  FROM regimes
  GROUP BY regimeId, startedAt
)
WHERE startedAtMs < {toMs:Int64} AND (endedAt IS NULL OR endedAt > {fromMs:Int64})
ORDER BY startedAtMs DESC
LIMIT 500`;

const row = z.object({
  regimeId: z.string(),
  name: z.string(),
  startedAt: z.number(),
  /** When the detector first marked it. */
  detectedAt: z.number(),
  /** null while it lasts. */
  endedAt: z.number().nullable(),
  isConfirmed: z.boolean(),
});
export type RegimeSpan = z.infer<typeof row>;

/** Oldest first; the newest 500 of the span. */
export async function regimeMarks(client: TelemetryClient, question: Span): Promise<RegimeSpan[]> {
  return (await client.query(sql, spanParams(question), row)).reverse();
}
