/**
 * What requests were charged, by whatever they have in common: those that ended in a span, the dearest groups first. Asked
 * by the API's costs.ledger. From the rows themselves, which are there for 90 days; a span of more than 48 h is that of
 * the whole hours (UTC) that it touches, like all other figures of cost.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { endedRequests, type Span, spanParams } from './measures.ts';
import { sourceOf } from './source-of.ts';

/** Column of `requests` that each grouping goes by. */
export const columns = {
  model: 'modelId',
  tier: 'serviceTier',
  tenant: 'tenant',
  session: 'session',
  program: 'program',
} as const;
export type CostGrouping = keyof typeof columns;

const deviceMs = 'prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs';
const inTier = (tier: string): string => `sumIf(chargedMs, serviceTier = '${tier}')`;
const isGood = `finishReason IN ('stop', 'length') AND (ttftObjectiveMs = 0 OR isWithinObjectives)`;

const sqlFor = (by: CostGrouping): string => `
SELECT
  toString(${columns[by]}) AS key,
  count() AS requestCount,
  countIf(${isGood}) AS goodRequestCount,
  sum(promptTokenCount) AS promptTokenCount,
  sum(cachedTokenCount) AS cachedTokenCount,
  sum(completionTokenCount) AS completionTokenCount,
  sum(prefillDeviceMs) AS prefillDeviceMs,
  sum(decodeDeviceMs) AS decodeDeviceMs,
  sum(speculationWasteDeviceMs) AS speculationWasteDeviceMs,
  sum(recomputeDeviceMs) AS recomputeDeviceMs,
  ${inTier('priority')} AS priorityDeviceMs,
  ${inTier('default')} AS defaultDeviceMs,
  ${inTier('flex')} AS flexDeviceMs,
  sumMap(map(toString(workerId), chargedMs)) AS deviceMsByWorker
FROM (SELECT *, ${deviceMs} AS chargedMs FROM ${endedRequests.rows})
GROUP BY key
ORDER BY sum(chargedMs) DESC, key
LIMIT {most:UInt32}`;

const row = z.object({
  /** '' where requests named none. */
  key: z.string(),
  requestCount: z.number(),
  /** Those that came to their end within all objectives they had. */
  goodRequestCount: z.number(),
  /** Cached ones included. */
  promptTokenCount: z.number(),
  cachedTokenCount: z.number(),
  completionTokenCount: z.number(),
  prefillDeviceMs: z.number(),
  decodeDeviceMs: z.number(),
  speculationWasteDeviceMs: z.number(),
  recomputeDeviceMs: z.number(),
  /** The same device ms by tier. */
  priorityDeviceMs: z.number(),
  defaultDeviceMs: z.number(),
  flexDeviceMs: z.number(),
  /** And by the worker that ended them. */
  deviceMsByWorker: z.record(z.string(), z.number()),
});
export type CostGroup = z.infer<typeof row>;

export function costGroups(
  client: TelemetryClient,
  question: Span & { readonly now: number; readonly by: CostGrouping; readonly most: number },
): Promise<CostGroup[]> {
  const params = { ...spanParams(sourceOf(question, question.now)), most: question.most };
  return client.query(sqlFor(question.by), params, row);
}
