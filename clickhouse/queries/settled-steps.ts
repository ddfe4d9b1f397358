/**
 * What a rollout's canary measured, by path: sums over its judged steps (serving, in a block of the plan, settled). Asked
 * by people and scripts after the fact; the judge itself reads the live rows and needs no ClickHouse.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { figure, itlQuantiles } from './measures.ts';

const sql = `
SELECT
  pathId,
  count() AS stepCount,
  uniqExact(blockIndex) AS blockCount,
  sum(deviceMs) AS deviceMs,
  sum(prefillTokenCount) AS prefillTokenCount,
  sum(decodeSequenceCount) AS decodeTokenCount,
  sum(decodeContextTokens) AS decodeContextTokens,
  sum(emittedTokenCount) AS emittedTokenCount,
  ${itlQuantiles('rows', 0.95)}[1] AS itlP95Ms,
  avg(foreignCpuShare) AS foreignCpuShare
FROM steps
WHERE rolloutId = {rolloutId:String} AND kind = 'serve' AND blockIndex >= 0 AND NOT isSettling
GROUP BY pathId
ORDER BY pathId`;

const row = z.object({
  pathId: z.string(),
  stepCount: z.number(),
  blockCount: z.number(),
  deviceMs: z.number(),
  prefillTokenCount: z.number(),
  decodeTokenCount: z.number(),
  decodeContextTokens: z.number(),
  emittedTokenCount: z.number(),
  itlP95Ms: figure,
  foreignCpuShare: z.number(),
});
export type SettledSteps = z.infer<typeof row>;

export function settledSteps(
  client: TelemetryClient,
  question: { readonly rolloutId: string },
): Promise<SettledSteps[]> {
  return client.query(sql, { rolloutId: question.rolloutId }, row);
}
