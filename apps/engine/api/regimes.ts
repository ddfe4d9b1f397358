/** regimes.*: the workload's regimes. `publish` makes a mark the regime of this moment; its row is the optimizer's. */
import { regimeMarks } from '@variator/clickhouse/queries/regime-marks';
import type { RegimeMark } from './contract.ts';
import { regimeMark, span } from './inputs.ts';
import { answerOf } from './telemetry-answer.ts';
import { mutation, query, router } from './trpc.ts';

export const regimes = router({
  list: query
    .input(span)
    .query(
      ({ ctx, input }): Promise<readonly RegimeMark[]> =>
        answerOf(ctx.telemetry, (client) => regimeMarks(client, input)),
    ),
  publish: mutation.input(regimeMark).mutation(({ ctx, input }): { regimeId: string } => {
    ctx.control.setRegimeName(input.endedAt === null ? input.name : '');
    return { regimeId: input.regimeId };
  }),
});
