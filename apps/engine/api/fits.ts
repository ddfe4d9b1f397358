/**
 * fits.*: the step-time fits in use, and how far off they were. `publish` hands a fit to the fleet, which mirrors it into
 * every worker; the optimizer's service has stored it in ClickHouse by its own insert.
 */
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { ControlError } from '../control/control-error.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { FitPredictions } from './contract.ts';
import { fitPredictions } from './fit-predictions.ts';
import { predictionsQuestion, stepTimeFit } from './inputs.ts';
import { answerOf } from './telemetry-answer.ts';
import { mutation, query, router } from './trpc.ts';

/** Far above the kernels one model can have on the devices of one gateway. */
const MOST_FITS = 256;

/** Newest first; those for the models of the present workers. */
function fitsOf(fleet: Fleet): StepTimeFit[] {
  const byKernels = new Map<string, StepTimeFit>();
  for (const fit of fleet.workers().flatMap((worker) => worker.fits)) {
    byKernels.set(`${fit.deviceKind} ${fit.modelHash} ${fit.kernelsId}`, fit);
  }
  return [...byKernels.values()].sort((one, other) => other.fittedAt - one.fittedAt);
}

export const fits = router({
  list: query.query(({ ctx }): StepTimeFit[] => fitsOf(ctx.fleet)),
  predictions: query
    .input(predictionsQuestion)
    .query(
      ({ ctx, input }): Promise<FitPredictions> =>
        answerOf(ctx.telemetry, (client) => fitPredictions(client, ctx.fleet, input)),
    ),
  publish: mutation.input(stepTimeFit).mutation(({ ctx, input }): { fitId: string } => {
    const known = fitsOf(ctx.fleet);
    if (known.length >= MOST_FITS && !known.some(({ kernelsId }) => kernelsId === input.kernelsId)) {
      throw new ControlError('refused', `There are fits for ${MOST_FITS} kernels already.`);
    }
    ctx.fleet.useFit(input);
    return { fitId: input.fitId };
  }),
});
