/**
 * fits.*: the step-time fits in use. `publish` mirrors a fit into this process and every worker; the optimizer's service
 * has stored it in ClickHouse by its own insert.
 */
import { latestFits } from '@variator/clickhouse/queries/fits';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { ControlError } from '../control/control-error.ts';
import { stepTimeFit } from './inputs.ts';
import { answerOf } from './telemetry-answer.ts';
import { type EngineParts, mutation, query, router } from './trpc.ts';

/** Far above the kernels one model can have on the devices of one gateway. */
const MOST_FITS = 256;

function useFit({ publishedFits, fleet }: EngineParts, fit: StepTimeFit): void {
  const key = `${fit.deviceKind} ${fit.modelHash} ${fit.kernelsId}`;
  if (!publishedFits.has(key) && publishedFits.size >= MOST_FITS) {
    throw new ControlError('refused', `There are fits for ${MOST_FITS} kernels already.`);
  }
  publishedFits.set(key, fit);
  fleet.useFit(fit);
}

/** After a restart the stored fits hold until the optimizer publishes newer ones. @throws TelemetryFault */
export async function restoreFits(parts: EngineParts): Promise<number> {
  const stored = await answerOf(parts.telemetry, latestFits);
  const isMissing = (fit: StepTimeFit) =>
    ![...parts.publishedFits.values()].some(({ kernelsId }) => kernelsId === fit.kernelsId);
  const wanted = stored.filter(isMissing).slice(0, MOST_FITS - parts.publishedFits.size);
  for (const fit of wanted) useFit(parts, fit);
  return wanted.length;
}

export const fits = router({
  list: query.query(({ ctx }): StepTimeFit[] => [...ctx.publishedFits.values()]),
  publish: mutation.input(stepTimeFit).mutation(({ ctx, input }): { fitId: string } => {
    useFit(ctx, input);
    return { fitId: input.fitId };
  }),
});
