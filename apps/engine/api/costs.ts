/**
 * costs.*: device milliseconds and dollars of a span, at the price the policy states; as a whole, by tenant,
 * and as a ledger of all device time by model, tier, tenant, session or program. A span of
 * more than 48 h is counted in the whole hours (UTC) that it touches.
 */
import { costSummary } from '@variator/clickhouse/queries/cost-summary';
import { tenantUsage } from '@variator/clickhouse/queries/tenant-usage';
import type { CostLedger, CostSummary, TenantCost } from './contract.ts';
import { costLedger } from './cost-ledger.ts';
import { groupedSpan, span } from './inputs.ts';
import { answerOf } from './telemetry-answer.ts';
import { query, router } from './trpc.ts';

export const costs = router({
  summary: query.input(span).query(({ ctx, input }): Promise<CostSummary> => {
    const { deviceUsdPerHour } = ctx.control.policy();
    return answerOf(ctx.telemetry, async (client) => ({
      deviceUsdPerHour,
      ...(await costSummary(client, { ...input, now: ctx.now(), usdPerHour: deviceUsdPerHour })),
    }));
  }),

  byTenant: query.input(span).query(({ ctx, input }): Promise<TenantCost[]> => {
    const { deviceUsdPerHour } = ctx.control.policy();
    return answerOf(ctx.telemetry, async (client) =>
      (await tenantUsage(client, { ...input, now: ctx.now() })).map((usage) => ({
        ...usage,
        deviceUsd: (usage.deviceMs / 3.6e6) * deviceUsdPerHour,
      })),
    );
  }),

  ledger: query.input(groupedSpan).query(({ ctx, input }): Promise<CostLedger> => {
    const { deviceUsdPerHour } = ctx.control.policy();
    return answerOf(ctx.telemetry, (client) =>
      costLedger(client, ctx.fleet, { ...input, now: ctx.now(), deviceUsdPerHour }),
    );
  }),
});
