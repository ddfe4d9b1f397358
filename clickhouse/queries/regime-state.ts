/** The newest state that a regime detector saved. Asked by the optimizer's service when it starts. */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';

const sql = `
SELECT state FROM regime_states
WHERE detector = {detector:String} AND windowMs = {windowMs:UInt32}
ORDER BY savedAt DESC
LIMIT 1`;

const row = z.object({ state: z.string() });

/** null where it never saved one, or none with windows of this length. */
export async function regimeState(
  client: TelemetryClient,
  question: { readonly detector: string; readonly windowMs: number },
): Promise<string | null> {
  const [newest] = await client.query(sql, question, row);
  return newest?.state ?? null;
}
