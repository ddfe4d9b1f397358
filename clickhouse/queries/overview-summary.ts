/** How the last span went, in single figures. Asked by the API's overview.summary. */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import {
  completionTokens,
  costUsdPerMillionTokens,
  endedInSpan,
  epochMs,
  figure,
  inSpan,
  itlQuantiles,
  promptTokens,
  type Span,
  sloAttainment,
  spanParams,
  tokensPerSecond,
  ttftQuantiles,
} from './measures.ts';

const seconds = '(({toMs:Int64} - {fromMs:Int64}) / 1000)';

const sql = `
SELECT * FROM (
  SELECT
    count() AS requestCount,
    countIf(finishReason = 'error') AS errorCount,
    ${ttftQuantiles(0.95)}[1] AS ttftP95Ms,
    ${sloAttainment} AS sloAttainment
  FROM requests WHERE ${endedInSpan}
) AS ended, (
  SELECT
    ${tokensPerSecond(completionTokens, seconds)} AS outputTokensPerSecond,
    ${tokensPerSecond(promptTokens, seconds)} AS inputTokensPerSecond,
    ${itlQuantiles(0.95)}[1] AS itlP95Ms,
    ${costUsdPerMillionTokens} AS costUsdPerMillionTokens
  FROM steps WHERE ${inSpan('startedAt')}
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
  question: Span & { readonly usdPerHour: number },
): Promise<OverviewFigures> {
  const rows = await client.query(sql, { ...spanParams(question), usdPerHour: question.usdPerHour }, row);
  const [figures] = rows;
  if (figures === undefined) throw new Error('Aggregates over no rows are one row, but none came.');
  return figures;
}
