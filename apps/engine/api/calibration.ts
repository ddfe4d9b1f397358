/**
 * calibration.*: times synthetic steps of a path that has not run yet. The worker decides when such a step may go and
 * keeps to its share of device time; this asks, in every autonomy level, unless the policy's share is 0.
 */
import { parsePath, pathFaults } from '@variator/kernels/execution-path';
import { z } from 'zod';
import { ControlError } from '../control/control-error.ts';
import { FleetError } from '../fleet/fleet.ts';
import { calibrationCases, executionPath, identifier } from './inputs.ts';
import { mutation, router } from './trpc.ts';

export const calibration = router({
  run: mutation
    .input(
      z.strictObject({
        workerId: identifier,
        path: z.union([executionPath, z.string().min(1).max(300)]),
        cases: calibrationCases,
      }),
    )
    .mutation(async ({ ctx, input }): Promise<{ stepCount: number; deviceMs: number }> => {
      const worker = ctx.fleet.workers().find(({ workerId }) => workerId === input.workerId);
      if (!worker) throw new FleetError(`There is no worker "${input.workerId}".`);
      if (ctx.control.policy().calibrationShare === 0) {
        throw new ControlError(
          'refused',
          'The policy gives calibration no device time (calibrationShare is 0).',
        );
      }
      const path = typeof input.path === 'string' ? parsePath(input.path, worker.envelope) : input.path;
      const faults = pathFaults(path, worker.envelope);
      if (faults.length > 0) throw new ControlError('invalid', faults.join(' '));
      return ctx.fleet.calibrate(input.workerId, path, input.cases);
    }),
});
