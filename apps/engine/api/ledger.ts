/**
 * ledger.*: what each rollout was predicted to do, beside what was measured. Cost and ITL come from the canary's pairs; to
 * the rollout that is live this adds TTFT, which only a comparison of before and after can tell and which gates nothing.
 */
import { ttft } from '@variator/clickhouse/queries/ttft';
import type { LedgerEntry } from '../control/control-types.ts';
import { listLimit } from './inputs.ts';
import { answerOf, TelemetryFault } from './telemetry-answer.ts';
import { type ApiContext, query, router } from './trpc.ts';

/** As far as before and after reach; fewer requests than this on either side say nothing. */
const MOST_SPAN_MS = 300_000;
const LEAST_REQUEST_COUNT = 20;

export const ledger = router({
  list: query.input(listLimit).query(async ({ ctx, input }): Promise<LedgerEntry[]> => {
    const entries = await ctx.control.ledger(input.limit);
    return Promise.all(entries.map((entry) => (entry.state === 'live' ? withTtft(ctx, entry) : entry)));
  }),
});

/** A change without an interval: the traffic's own change is in it. The ledger stands also where ClickHouse is silent. */
async function withTtft(ctx: ApiContext, entry: LedgerEntry): Promise<LedgerEntry> {
  const { startedAt } = await ctx.control.rollout(entry.rolloutId);
  const toMs = Math.min(ctx.now(), entry.endedAt + MOST_SPAN_MS);
  try {
    const [before, after] = await answerOf(ctx.telemetry, (client) =>
      Promise.all([
        ttft(client, { fromMs: startedAt - MOST_SPAN_MS, toMs: startedAt }),
        ttft(client, { fromMs: entry.endedAt, toMs }),
      ]),
    );
    if (Math.min(before.requestCount, after.requestCount) < LEAST_REQUEST_COUNT) return entry;
    const rows = entry.rows.map((row) => {
      if (row.metric !== 'ttftP50Ms' && row.metric !== 'ttftP95Ms') return row;
      const [then, now] = [before[row.metric], after[row.metric]];
      return then === null || now === null ? row : { ...row, realisedChange: now / then - 1 };
    });
    return { ...entry, rows };
  } catch (error) {
    if (error instanceof TelemetryFault) return entry;
    throw error;
  }
}
