/** costs.*: device milliseconds and dollars of a span, at the price the policy states. */
import { costSummary } from '@variator/clickhouse/queries/cost-summary';
import type { CostSummary } from './contract.ts';
import { span } from './inputs.ts';
import { answerOf } from './telemetry-answer.ts';
import { query, router } from './trpc.ts';

export const costs = router({
  summary: query.input(span).query(({ ctx, input }): Promise<CostSummary> => {
    const { deviceUsdPerHour } = ctx.control.policy();
    return answerOf(ctx.telemetry, async (client) => ({
      deviceUsdPerHour,
      ...(await costSummary(client, { ...input, usdPerHour: deviceUsdPerHour })),
    }));
  }),
});
