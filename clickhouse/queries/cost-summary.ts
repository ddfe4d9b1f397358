/**
 * What a span cost: device ms by kind, tokens, requests. Asked by the API's costs.summary. Device ms and tokens come from
 * steps, so that the parts add up to the whole at the span's edges too; requests are those that ended in it. A span of more
 * than 48 h is counted in the whole hours (UTC) that it touches.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import {
  completionTokens,
  costUsdPerMillionTokens,
  endedRequests,
  figure,
  promptTokens,
  requestCount,
  type Span,
  spanParams,
  startedSteps,
} from './measures.ts';
import { type Source, sourceOf } from './source-of.ts';

const sqlFor = (source: Source): string => `
SELECT ran.*, requestCount, servedDeviceMs / nullIf(requestCount, 0) AS deviceMsPerRequest
FROM (
  SELECT
    sum(deviceMs) AS deviceMs,
    sumIf(deviceMs, kind = 'serve') AS servedDeviceMs,
    sumIf(prefillDeviceMs, kind = 'serve') AS prefillDeviceMs,
    sumIf(decodeDeviceMs, kind = 'serve') AS decodeDeviceMs,
    sumIf(speculationWasteDeviceMs, kind = 'serve') AS speculationWasteDeviceMs,
    sumIf(recomputeDeviceMs, kind = 'serve') AS recomputeDeviceMs,
    sumIf(deviceMs, kind = 'calibration') AS calibrationDeviceMs,
    round(${promptTokens[source]}) AS promptTokenCount,
    ${completionTokens} AS completionTokenCount,
    ${costUsdPerMillionTokens(source)} AS costUsdPerMillionTokens
  FROM ${startedSteps[source]}
) AS ran, (
  SELECT ${requestCount[source]} AS requestCount FROM ${endedRequests[source]}
) AS ended`;

const row = z.object({
  /** All kinds of steps. */
  deviceMs: z.number(),
  prefillDeviceMs: z.number(),
  decodeDeviceMs: z.number(),
  speculationWasteDeviceMs: z.number(),
  recomputeDeviceMs: z.number(),
  calibrationDeviceMs: z.number(),
  promptTokenCount: z.number(),
  completionTokenCount: z.number(),
  requestCount: z.number(),
  costUsdPerMillionTokens: figure,
  /** Device ms of serving steps per request. */
  deviceMsPerRequest: figure,
});
export type CostFigures = z.infer<typeof row>;

export async function costSummary(
  client: TelemetryClient,
  question: Span & { readonly now: number; readonly usdPerHour: number },
): Promise<CostFigures> {
  const span = sourceOf(question, question.now);
  const params = { ...spanParams(span), usdPerHour: question.usdPerHour };
  const rows = await client.query(sqlFor(span.source), params, row);
  const [figures] = rows;
  if (figures === undefined) throw new Error('Aggregates over no rows are one row, but none came.');
  return figures;
}
