/**
 * What the workload was like, window by window: the regime detector's features (natural logarithms; CV2 is the squared
 * coefficient of variation of the gaps between arrivals). Asked by the optimizer's service. `countedAt: 'end'` counts a
 * request in the window in which it ended: its row is there then, so the newest window is whole. `'arrival'` is truer
 * of the past, but lacks whatever is still running. Refused requests are not counted.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import {
  endedAtMs,
  endedInSpan,
  epochMs,
  figure,
  inSpan,
  isServed,
  type Span,
  spanParams,
} from './measures.ts';

export type CountedAt = 'arrival' | 'end';

const MOST_WINDOWS = 5000;

const windowOf = (ms: string): string => `toInt64(floor((${ms} - {fromMs:Int64}) / {windowMs:Int64}))`;
const windowStart = '({fromMs:Int64} + windowIndex * {windowMs:Int64})';

const sqlFor = (countedAt: CountedAt): string => `
SELECT
  ${windowStart.replace('windowIndex', 'axis.windowIndex')} AS startedAt,
  ifNull(seen.requestCount, 0) AS requestCount, ifNull(seen.sessionCount, 0) AS sessionCount,
  seen.meanLogPrompt AS meanLogPrompt, seen.p90LogPrompt AS p90LogPrompt,
  seen.meanLog1pUncached AS meanLog1pUncached, seen.meanLogOutput AS meanLogOutput,
  seen.logArrivalRate AS logArrivalRate, seen.logSessionRate AS logSessionRate, seen.logCv2 AS logCv2,
  seen.meanHitShare AS meanHitShare,
  ifNull(flight.concurrency, 0) AS concurrency
FROM (
  SELECT arrayJoin(range(toInt64({windowCount:UInt32}))) AS windowIndex
) AS axis
LEFT JOIN (
  SELECT
    ${windowOf(countedAt === 'end' ? endedAtMs : epochMs('arrivedAt'))} AS windowIndex,
    count() AS requestCount,
    uniqExact(if(session = '', requestId, session)) AS sessionCount,
    avg(log(greatest(promptTokenCount, 1))) AS meanLogPrompt,
    quantileExactInclusive(0.9)(log(greatest(promptTokenCount, 1))) AS p90LogPrompt,
    avg(log1p(promptTokenCount - least(cachedTokenCount, promptTokenCount))) AS meanLog1pUncached,
    avg(log(greatest(completionTokenCount, 1))) AS meanLogOutput,
    log(requestCount * 1000 / {windowMs:Int64}) AS logArrivalRate,
    log(sessionCount * 1000 / {windowMs:Int64}) AS logSessionRate,
    arrayPopFront(arrayDifference(arraySort(groupArray(${epochMs('arrivedAt')})))) AS gaps,
    if(length(gaps) < 2, NULL,
      log(greatest(arrayAvg(gap -> gap * gap, gaps) / pow(greatest(arrayAvg(gaps), 1e-6), 2) - 1, 1e-3))) AS logCv2,
    avg(cachedTokenCount / greatest(promptTokenCount, 1)) AS meanHitShare
  FROM requests WHERE ${isServed} AND ${countedAt === 'end' ? endedInSpan : inSpan('arrivedAt')}
  GROUP BY windowIndex
) AS seen ON seen.windowIndex = axis.windowIndex
LEFT JOIN (
  SELECT
    windowIndex,
    sum(least(untilMs, toFloat64(${windowStart} + {windowMs:Int64})) - greatest(sinceMs, toFloat64(${windowStart}))) / {windowMs:Int64}
      AS concurrency
  FROM (
    SELECT
      ${epochMs('arrivedAt')} AS sinceMs,
      sinceMs + e2eMs AS untilMs,
      arrayJoin(range(
        greatest(${windowOf('sinceMs')}, 0),
        least(${windowOf('untilMs')} + 1, toInt64({windowCount:UInt32}))
      )) AS windowIndex
    FROM requests
    WHERE ${isServed} AND arrivedAt >= fromUnixTimestamp64Milli({fromMs:Int64}, 'UTC') - INTERVAL 1 DAY
      AND arrivedAt < fromUnixTimestamp64Milli({toMs:Int64}, 'UTC') AND ${endedAtMs} >= {fromMs:Int64}
  )
  GROUP BY windowIndex
) AS flight ON flight.windowIndex = axis.windowIndex
ORDER BY startedAt
SETTINGS join_use_nulls = 1`;

const row = z.object({
  startedAt: z.number(),
  requestCount: z.number(),
  /** With a request in the window; a request without a session counts as one. */
  sessionCount: z.number(),
  meanLogPrompt: figure,
  p90LogPrompt: figure,
  meanLog1pUncached: figure,
  meanLogOutput: figure,
  /** Of requests per second. */
  logArrivalRate: figure,
  /** Of sessions that had a request, per second. */
  logSessionRate: figure,
  /** null below three requests; not below log 0.001. */
  logCv2: figure,
  meanHitShare: figure,
  /** Mean number of requests in flight, of those that have ended. */
  concurrency: z.number(),
});
export type WorkloadWindow = z.infer<typeof row>;

/** Every whole window of the span, oldest first; a window without requests has null features. */
export async function workloadWindows(
  client: TelemetryClient,
  question: Span & { readonly windowMs: number; readonly countedAt: CountedAt },
): Promise<WorkloadWindow[]> {
  const fromMs = Math.floor(question.fromMs);
  const windowMs = Math.floor(question.windowMs);
  const windowCount = Math.floor((question.toMs - fromMs) / windowMs);
  if (!(windowMs >= 1) || windowCount > MOST_WINDOWS) {
    throw new RangeError(`There can be at most ${MOST_WINDOWS} windows of whole milliseconds.`);
  }
  if (windowCount < 1) return [];
  const toMs = fromMs + windowCount * windowMs;
  return client.query(
    sqlFor(question.countedAt),
    { ...spanParams({ fromMs, toMs }), windowMs, windowCount },
    row,
  );
}
