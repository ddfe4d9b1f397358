/** How the last span went, in single figures. Asked by the API's overview.summary. */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import {
  completionTokens,
  costUsdPerMillionTokens,
  endedRequests,
  epochMs,
  failedCount,
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

const seconds = '(({toMs:Int64} - {fromMs:Int64}) / 1000)';

const sqlFor = (source: Source): string => `
SELECT * FROM (
  SELECT
    ${requestCount[source]} AS requestCount,
    ${failedCount[source]} AS errorCount,
    ${ttftQuantiles(source, 0.95)}[1] AS ttftP95Ms,
    ${sloAttainment[source]} AS sloAttainment
  FROM ${endedRequests[source]}
) AS ended, (
  SELECT
    ${tokensPerSecond(completionTokens, seconds)} AS outputTokensPerSecond,
    ${tokensPerSecond(promptTokens[source], seconds)} AS inputTokensPerSecond,
    ${itlQuantiles(source, 0.95)}[1] AS itlP95Ms,
    ${costUsdPerMillionTokens(source)} AS costUsdPerMillionTokens
  FROM ${startedSteps[source]}
) AS ran, (
  SELECT ${epochMs('maxOrNull(startedAt)')} AS lastStepAt FROM steps
) AS newest`;

const row = z.object({
  requestCount: z.number(),
  errorCount: z.number(),
  outputTokensPerSecond: figure,
  inputTokensPerSecond: figure,
  ttftP95Ms: figure,
  itlP95Ms: figure,
  costUsdPerMillionTokens: figure,
  sloAttainment: figure,
  /** Epoch ms of the newest step of all; null before any. */
  lastStepAt: figure,
});
export type OverviewFigures = z.infer<typeof row>;

export async function overviewSummary(
  client: TelemetryClient,
  question: Span & { readonly now: number; readonly usdPerHour: number },
): Promise<OverviewFigures> {
  const span = sourceOf(question, question.now);
  const params = { ...spanParams(span), usdPerHour: question.usdPerHour };
  const rows = await client.query(sqlFor(span.source), params, row);
  const [figures] = rows;
  if (figures === undefined) throw new Error('Aggregates over no rows are one row, but none came.');
  return figures;
}
