/**
 * The regimes that a span saw, the one that was on when it began included. Asked by the API's regimes and overview. A
 * mark lasts until the next one starts. What was detected later knows better: it replaces a mark of the same regimeId and
 * startedAt, and hides those that start where it starts or after it (a suspicion, once the change is confirmed).
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { type Span, spanParams } from './measures.ts';

const sql = `
SELECT regimeId, name, startedAtMs AS startedAt, detectedAtMs AS detectedAt, endedAt, isConfirmed
FROM (
  SELECT
    *, leadInFrame(toNullable(startedAtMs)) OVER (
      ORDER BY startedAtMs ROWS BETWEEN CURRENT ROW AND UNBOUNDED FOLLOWING
    ) AS endedAt
  FROM (
    SELECT
      regimeId,
      toUnixTimestamp64Micro(startedAt) / 1000 AS startedAtMs,
      argMax(name, (isConfirmed, detectedAt)) AS name,
      toUnixTimestamp64Micro(min(detectedAt)) / 1000 AS detectedAtMs,
      max(detectedAt) AS lastDetectedAt,
      max(isConfirmed) AS isConfirmed,
      min(toNullable(startedAtMs)) OVER (
        ORDER BY lastDetectedAt ROWS BETWEEN 1 FOLLOWING AND UNBOUNDED FOLLOWING
      ) AS revisedFrom
    FROM regimes
    GROUP BY regimeId, startedAt
  )
  WHERE revisedFrom IS NULL OR revisedFrom > startedAtMs
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
