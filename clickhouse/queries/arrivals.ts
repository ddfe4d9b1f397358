/**
 * The requests that arrived in a span, for replay and for judging a window. Asked by the optimizer's service. Only those
 * that have ended have a row, so a span that ends now lacks what is still running. Refused ones are not among them.
 */
import type { GuessCounts } from '@variator/scheduler/sequence';
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { epochMs, inSpan, isServed, type Span, spanParams } from './measures.ts';

const sql = `
SELECT
  requestId, ${epochMs('arrivedAt')} AS arrivedAtMs, session, program, tenant, serviceTier, finishReason, pathId,
  promptTokenCount, cachedTokenCount, completionTokenCount, queueMs, ttftMs, tpotMs, itlP95Ms, e2eMs,
  prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs AS deviceMs,
  ttftObjectiveMs, itlObjectiveMs, isWithinObjectives, isStreamed,
  watchedTokenCount, guessedTokenCount, rightGuessCount, rightRunCount
FROM requests
WHERE ${isServed} AND ${inSpan('arrivedAt')}
ORDER BY arrivedAt DESC
LIMIT {limit:UInt32}`;

const row = z.object({
  requestId: z.string(),
  arrivedAtMs: z.number(),
  session: z.string(),
  program: z.string(),
  tenant: z.string(),
  serviceTier: z.enum(['priority', 'default', 'flex']),
  finishReason: z.enum(['stop', 'length', 'cancelled', 'error', 'expired']),
  pathId: z.string(),
  promptTokenCount: z.number(),
  cachedTokenCount: z.number(),
  completionTokenCount: z.number(),
  queueMs: z.number(),
  ttftMs: z.number(),
  tpotMs: z.number(),
  itlP95Ms: z.number(),
  e2eMs: z.number(),
  /** All that was charged to it. */
  deviceMs: z.number(),
  ttftObjectiveMs: z.number(),
  itlObjectiveMs: z.number(),
  isWithinObjectives: z.boolean(),
  isStreamed: z.boolean(),
  watchedTokenCount: z.number(),
  guessedTokenCount: z.number(),
  rightGuessCount: z.number(),
  rightRunCount: z.number(),
});

export interface Arrival
  extends Omit<
    z.infer<typeof row>,
    'arrivedAtMs' | 'ttftObjectiveMs' | 'itlObjectiveMs' | keyof GuessCounts
  > {
  readonly arrivedAt: number;
  /** Null where nobody watched what guesses at its tokens would be worth. */
  readonly guesses: GuessCounts | null;
  readonly objectives: { readonly ttftMs: number; readonly itlMs: number };
}

/** In order of arrival; the newest `limit` of the span. */
export async function arrivals(
  client: TelemetryClient,
  question: Span & { readonly limit: number },
): Promise<Arrival[]> {
  const rows = await client.query(sql, { ...spanParams(question), limit: question.limit }, row);
  return rows
    .reverse()
    .map(
      ({
        arrivedAtMs,
        ttftObjectiveMs,
        itlObjectiveMs,
        watchedTokenCount,
        guessedTokenCount,
        rightGuessCount,
        rightRunCount,
        ...rest
      }) => ({
        ...rest,
        arrivedAt: arrivedAtMs,
        objectives: { ttftMs: ttftObjectiveMs, itlMs: itlObjectiveMs },
        guesses:
          watchedTokenCount === 0
            ? null
            : { watchedTokenCount, guessedTokenCount, rightGuessCount, rightRunCount },
      }),
    );
}
