/**
 * fits.*: the step-time fits in use. `publish` mirrors a fit into this process and every worker; the optimizer's service
 * has stored it in ClickHouse by its own insert.
 */
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { ControlError } from '../control/control-error.ts';
import { stepTimeFit } from './inputs.ts';
import { mutation, query, router } from './trpc.ts';

/** Far above the kernels one model can have on the devices of one gateway. */
const MOST_FITS = 256;

export const fits = router({
  list: query.query(({ ctx }): StepTimeFit[] => [...ctx.publishedFits.values()]),
  publish: mutation.input(stepTimeFit).mutation(({ ctx, input }): { fitId: string } => {
    const key = `${input.deviceKind} ${input.modelHash} ${input.kernelsId}`;
    if (!ctx.publishedFits.has(key) && ctx.publishedFits.size >= MOST_FITS) {
      throw new ControlError('refused', `There are fits for ${MOST_FITS} kernels already.`);
    }
    ctx.publishedFits.set(key, input);
    ctx.fleet.useFit(input);
    return { fitId: input.fitId };
  }),
});
