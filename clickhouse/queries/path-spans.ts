/**
 * Which execution path each worker ran when: one row for every run of steps on the same path. Asked by the API's
 * overview.series. At most the newest 500 spans. Read from hours, an hour has one piece of each path that ran in it.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { epochMs, type Span, spanParams, startedSteps } from './measures.ts';
import { type Source, sourceOf } from './source-of.ts';

const inOrder = 'PARTITION BY workerId ORDER BY beganAtMs, stepId';

const pieces: Readonly<Record<Source, string>> = {
  rows: `
      SELECT workerId, pathId, stepId, ${epochMs('startedAt')} AS beganAtMs, beganAtMs + deviceMs AS endedAtMs
      FROM ${startedSteps.rows} AND kind = 'serve'`,
  hours: `
      SELECT
        workerId, pathId, 0 AS stepId,
        ${epochMs('min(firstStartedAt)')} AS beganAtMs, ${epochMs('max(lastStartedAt)')} AS endedAtMs
      FROM ${startedSteps.hours} AND kind = 'serve'
      GROUP BY hour, workerId, pathId`,
};

const sqlFor = (source: Source): string => `
SELECT workerId, pathId, min(beganAtMs) AS fromMs, max(endedAtMs) AS toMs
FROM (
  SELECT
    workerId, pathId, beganAtMs, endedAtMs,
    sum(isChange) OVER (${inOrder} ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW) AS spanIndex
  FROM (
    SELECT
      *,
      pathId != lagInFrame(toString(pathId), 1, '') OVER (${inOrder} ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS isChange
    FROM (${pieces[source]}
    )
  )
)
GROUP BY workerId, spanIndex, pathId
ORDER BY fromMs DESC
LIMIT 500`;

const row = z.object({ workerId: z.string(), pathId: z.string(), fromMs: z.number(), toMs: z.number() });
export type PathSpanOfWorker = z.infer<typeof row>;

/** Oldest first. `bucketMs`: of the series that they belong to. */
export async function pathSpans(
  client: TelemetryClient,
  question: Span & { readonly now: number; readonly bucketMs: number },
): Promise<PathSpanOfWorker[]> {
  const span = sourceOf(question, question.now, question.bucketMs);
  return (await client.query(sqlFor(span.source), spanParams(span), row)).reverse();
}
