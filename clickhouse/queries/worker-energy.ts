/**
 * What the devices took in a span, by worker, of those that say. Asked by the API's costs.ledger, which shares it by device
 * ms. From the step rows, whose joules include the pauses between steps.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { type Span, spanParams, startedSteps } from './measures.ts';

const sql = `
SELECT workerId, sum(joules) AS energyJoules, sum(ms) AS deviceMs
FROM (SELECT workerId, energyJoules AS joules, deviceMs AS ms FROM ${startedSteps.rows})
GROUP BY workerId
HAVING energyJoules > 0
ORDER BY workerId`;

const row = z.object({
  workerId: z.string(),
  energyJoules: z.number(),
  /** Of all its steps, calibration and checks included. */
  deviceMs: z.number(),
});
export type WorkerEnergy = z.infer<typeof row>;

export function workerEnergy(client: TelemetryClient, span: Span): Promise<WorkerEnergy[]> {
  return client.query(sql, spanParams(span), row);
}
