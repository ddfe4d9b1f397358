/**
 * Which execution path each worker ran when: one row for every run of steps on the same path. Asked by the API's
 * overview.series. At most the newest 500 spans.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { epochMs, inSpan, type Span, spanParams } from './measures.ts';

const inOrder = 'PARTITION BY workerId ORDER BY startedAt, stepId';

const sql = `
SELECT workerId, pathId, min(beganAtMs) AS fromMs, max(beganAtMs + deviceMs) AS toMs
FROM (
  SELECT
    workerId, pathId, beganAtMs, deviceMs,
    sum(isChange) OVER (${inOrder} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS spanIndex
  FROM (
    SELECT
      workerId, pathId, startedAt, stepId, deviceMs,
      ${epochMs('startedAt')} AS beganAtMs,
      pathId != lagInFrame(toString(pathId), 1, '') OVER (${inOrder} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS isChange
    FROM steps
    WHERE kind = 'serve' AND ${inSpan('startedAt')}
  )
)
GROUP BY workerId, spanIndex, pathId
ORDER BY fromMs DESC
LIMIT 500`;

const row = z.object({ workerId: z.string(), pathId: z.string(), fromMs: z.number(), toMs: z.number() });
export type PathSpanOfWorker = z.infer<typeof row>;

/** Oldest first. */
export async function pathSpans(client: TelemetryClient, question: Span): Promise<PathSpanOfWorker[]> {
  return (await client.query(sql, spanParams(question), row)).reverse();
}
