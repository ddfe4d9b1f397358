/**
 * How long the prefix cache kept for a session what its next turn found there: cached tokens times the seconds since its
 * turns before had ended. Asked by the API's costs.ledger for the groups it prices. What waited for nobody is not in it,
 * nor what the first turn of a session found, which others had left there.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { type CostGrouping, columns } from './cost-groups.ts';
import { endedAtMs, epochMs, isServed, type Span, spanParams } from './measures.ts';

const sqlFor = (by: CostGrouping): string => `
SELECT key, sum(cachedTokenCount * greatest(arrivedAtMs - earlierEndAtMs, 0) / 1000) AS keptTokenSeconds
FROM (
  SELECT
    toString(${columns[by]}) AS key, cachedTokenCount, ${epochMs('arrivedAt')} AS arrivedAtMs, ${endedAtMs} AS endAtMs,
    max(${endedAtMs}) OVER (
      PARTITION BY tenant, session ORDER BY arrivedAt, requestId ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
    ) AS earlierEndAtMs
  FROM requests
  WHERE ${isServed} AND session != ''
    AND arrivedAt >= fromUnixTimestamp64Milli({fromMs:Int64}, 'UTC') - INTERVAL 1 DAY
    AND arrivedAt < fromUnixTimestamp64Milli({toMs:Int64}, 'UTC')
)
WHERE earlierEndAtMs > 0 AND endAtMs >= {fromMs:Int64} AND endAtMs < {toMs:Int64} AND key IN {keys:Array(String)}
GROUP BY key
ORDER BY key`;

const row = z.object({ key: z.string(), keptTokenSeconds: z.number() });
export type KeptPrefix = z.infer<typeof row>;

/** Groups whose sessions had no second turn are left out. */
export function keptPrefixes(
  client: TelemetryClient,
  question: Span & { readonly by: CostGrouping; readonly keys: readonly string[] },
): Promise<KeptPrefix[]> {
  if (question.keys.length === 0) return Promise.resolve([]);
  return client.query(sqlFor(question.by), { ...spanParams(question), keys: question.keys }, row);
}
