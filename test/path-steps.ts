/**
 * What the step rows in ClickHouse say about the execution paths a worker ran. Used by the end-to-end tests, to see a
 * change of path where it was measured and not where it was ordered.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import { z } from 'zod';
import type { StreamRecord } from './streaming-clients.ts';

export function telemetryOf(dataDir: string): TelemetryClient {
  return createTelemetryClient(readFileSync(join(dataDir, 'clickhouse-url'), 'utf8').trim());
}

/** The path of the newest serving step outside any canary that began at or after a time; null before there is one. */
export async function newestPathId(telemetry: TelemetryClient, sinceMs: number): Promise<string | null> {
  const rows = await telemetry.query(
    `SELECT toString(pathId) AS pathId FROM steps
     WHERE kind = 'serve' AND blockIndex < 0 AND startedAt >= fromUnixTimestamp64Milli({sinceMs:Int64}, 'UTC')
     ORDER BY startedAt DESC LIMIT 1`,
    { sinceMs: Math.floor(sinceMs) },
    z.object({ pathId: z.string() }),
  );
  return rows[0]?.pathId ?? null;
}

/** Serving steps a canary's blocks ran, by path id. */
export async function canaryStepCounts(
  telemetry: TelemetryClient,
  rolloutId: string,
): Promise<ReadonlyMap<string, number>> {
  const rows = await telemetry.query(
    `SELECT toString(pathId) AS pathId, count() AS stepCount FROM steps
     WHERE kind = 'serve' AND rolloutId = {rolloutId:String} AND blockIndex >= 0 GROUP BY pathId`,
    { rolloutId },
    z.object({ pathId: z.string(), stepCount: z.number() }),
  );
  return new Map(rows.map((row) => [row.pathId, row.stepCount]));
}

/** Epoch ms of every first step on another path than the step before. */
export async function switchTimes(telemetry: TelemetryClient): Promise<number[]> {
  const rows = await telemetry.query(
    `SELECT at FROM (
       SELECT toUnixTimestamp64Micro(startedAt) / 1000 AS at, toString(pathId) AS pathId,
         lagInFrame(toString(pathId), 1, toString(pathId))
           OVER (ORDER BY startedAt, stepId ROWS BETWEEN 1 PRECEDING AND CURRENT ROW) AS before
       FROM steps WHERE kind = 'serve'
     ) WHERE pathId != before ORDER BY at`,
    {},
    z.object({ at: z.number() }),
  );
  return rows.map(({ at }) => at);
}

/** Streams that were open, waiting or sending, when the path changed under them. */
export function acrossSwitches(
  records: readonly StreamRecord[],
  switchesAt: readonly number[],
): StreamRecord[] {
  return records.filter(({ startedAt, endedAt }) => switchesAt.some((at) => startedAt < at && at < endedAt));
}
