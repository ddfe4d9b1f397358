/** A worker's ITL p99 under one path in a span, ms: what its replay is held against. Asked by the optimizer's service. */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { figure, inSpan, itlQuantiles, type Span, spanParams } from './measures.ts';

/** Gaps; a p99 of fewer is a few steps' chance. */
const LEAST_GAPS = 1000;

const sql = `
SELECT if(sum(itlTokenCount) < ${LEAST_GAPS}, NULL, ${itlQuantiles('rows', 0.99)}[1]) AS itlP99Ms FROM steps
WHERE workerId = {workerId:String} AND pathId = {pathId:String} AND kind = 'serve' AND ${inSpan('startedAt')}`;

/** Null where it had fewer than 1000 gaps there. */
export async function pathItl(
  client: TelemetryClient,
  { workerId, pathId, ...span }: Span & { readonly workerId: string; readonly pathId: string },
): Promise<number | null> {
  const params = { ...spanParams(span), workerId, pathId };
  const [row] = await client.query(sql, params, z.object({ itlP99Ms: figure }));
  return row?.itlP99Ms ?? null;
}
