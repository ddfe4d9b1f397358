/** How many steps a worker served in a span: how much a proposal's evidence rests on. Asked by the optimizer's service. */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { inSpan, type Span, spanParams } from './measures.ts';

const sql = `
SELECT count() AS stepCount FROM steps
WHERE workerId = {workerId:String} AND kind = 'serve' AND ${inSpan('startedAt')}`;

export async function stepCount(
  client: TelemetryClient,
  question: Span & { readonly workerId: string },
): Promise<number> {
  const params = { ...spanParams(question), workerId: question.workerId };
  const [row] = await client.query(sql, params, z.object({ stepCount: z.number() }));
  return row?.stepCount ?? 0;
}
