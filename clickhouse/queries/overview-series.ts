/**
 * The overview's figures bucket by bucket, for charts. Asked by the API's overview.series. Buckets are aligned to the
 * epoch, so that they stand still while the span moves; the first and last count only their part within the span (beyond
 * 48 h, in buckets of whole hours, the hours of it). Rows arrive up to about a second after the fact, so a last bucket that
 * ends now is still filling.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import {
  completionTokens,
  costUsdPerMillionTokens,
  endedAtMs,
  endedRequests,
  figure,
  itlQuantiles,
  promptTokens,
  requestCount,
  type Span,
  sloAttainment,
  spanParams,
  startedSteps,
  tokensPerSecond,
  ttftQuantiles,
} from './measures.ts';
import { type Source, sourceOf } from './source-of.ts';

const MOST_BUCKETS = 5000;

const bucketOf = (ms: string): string => `toInt64(intDiv(${ms}, {bucketMs:Int64}))`;
const seconds =
  '((least((bucket + 1) * {bucketMs:Int64}, {toMs:Int64}) - greatest(bucket * {bucketMs:Int64}, {fromMs:Int64})) / 1000)';

const hourMs = 'toUnixTimestamp(hour) * 1000';
const endedBucket: Readonly<Record<Source, string>> = {
  rows: bucketOf(`toInt64(floor(${endedAtMs}))`),
  hours: bucketOf(hourMs),
};
const startedBucket: Readonly<Record<Source, string>> = {
  rows: bucketOf('toUnixTimestamp64Milli(startedAt)'),
  hours: bucketOf(hourMs),
};

const sqlFor = (source: Source): string => `
SELECT
  axis.bucket * {bucketMs:Int64} AS at,
  ifNull(ended.requestCount, 0) AS requestCount,
  ended.ttftP50Ms AS ttftP50Ms, ended.ttftP95Ms AS ttftP95Ms, ended.ttftP99Ms AS ttftP99Ms,
  ended.sloAttainment AS sloAttainment,
  ran.outputTokensPerSecond AS outputTokensPerSecond, ran.inputTokensPerSecond AS inputTokensPerSecond,
  ran.itlP50Ms AS itlP50Ms, ran.itlP95Ms AS itlP95Ms, ran.itlP99Ms AS itlP99Ms,
  ran.costUsdPerMillionTokens AS costUsdPerMillionTokens
FROM (
  SELECT arrayJoin(range({firstBucket:Int64}, {endBucket:Int64})) AS bucket
) AS axis
LEFT JOIN (
  SELECT
    ${endedBucket[source]} AS bucket,
    ${requestCount[source]} AS requestCount,
    ${ttftQuantiles(source, 0.5, 0.95, 0.99)} AS ttft,
    ttft[1] AS ttftP50Ms, ttft[2] AS ttftP95Ms, ttft[3] AS ttftP99Ms,
    ${sloAttainment[source]} AS sloAttainment
  FROM ${endedRequests[source]} GROUP BY bucket
) AS ended ON ended.bucket = axis.bucket
LEFT JOIN (
  SELECT
    ${startedBucket[source]} AS bucket,
    ${tokensPerSecond(completionTokens, seconds)} AS outputTokensPerSecond,
    ${tokensPerSecond(promptTokens[source], seconds)} AS inputTokensPerSecond,
    ${itlQuantiles(source, 0.5, 0.95, 0.99)} AS itl,
    itl[1] AS itlP50Ms, itl[2] AS itlP95Ms, itl[3] AS itlP99Ms,
    ${costUsdPerMillionTokens(source)} AS costUsdPerMillionTokens
  FROM ${startedSteps[source]} GROUP BY bucket
) AS ran ON ran.bucket = axis.bucket
ORDER BY at
SETTINGS join_use_nulls = 1`;

const row = z.object({
  /** Start of the bucket, epoch ms. */
  at: z.number(),
  requestCount: z.number(),
  outputTokensPerSecond: figure,
  inputTokensPerSecond: figure,
  ttftP50Ms: figure,
  ttftP95Ms: figure,
  ttftP99Ms: figure,
  itlP50Ms: figure,
  itlP95Ms: figure,
  itlP99Ms: figure,
  costUsdPerMillionTokens: figure,
  sloAttainment: figure,
});
export type OverviewPoint = z.infer<typeof row>;

/** One point for every bucket of the span, oldest first. @throws RangeError beyond 5,000 buckets */
export async function overviewSeries(
  client: TelemetryClient,
  question: Span & { readonly now: number; readonly bucketMs: number; readonly usdPerHour: number },
): Promise<OverviewPoint[]> {
  const { now, bucketMs, usdPerHour } = question;
  const span = sourceOf(question, now, bucketMs);
  const { fromMs, toMs } = span;
  const firstBucket = Math.floor(fromMs / bucketMs);
  const endBucket = Math.ceil(toMs / bucketMs);
  if (!Number.isInteger(bucketMs) || bucketMs < 1 || endBucket - firstBucket > MOST_BUCKETS) {
    throw new RangeError(`A series has at most ${MOST_BUCKETS} buckets of whole milliseconds.`);
  }
  if (endBucket <= firstBucket) return [];
  const params = { ...spanParams(span), bucketMs, usdPerHour, firstBucket, endBucket };
  return client.query(sqlFor(span.source), params, row);
}
