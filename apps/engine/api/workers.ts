/** workers.*: the workers that have joined, and putting one on a path by hand. */
import { kernelsId, parsePath } from '@variator/kernels/execution-path';
import { z } from 'zod';
import { FleetError } from '../fleet/fleet.ts';
import type { WorkerSummary } from './contract.ts';
import { identifier } from './inputs.ts';
import { mutation, query, router } from './trpc.ts';

export const workers = router({
  list: query.query(({ ctx }): WorkerSummary[] =>
    ctx.fleet.workers().map(({ bootId: _bootId, fits: _fits, ...worker }) => ({
      ...worker,
      kernelsId: kernelsId(worker.path),
    })),
  ),
  switchTo: mutation
    .input(z.strictObject({ workerId: identifier, path: z.string().min(1).max(300) }))
    .mutation(({ ctx, input }): Promise<{ pathId: string }> => {
      const worker = ctx.fleet.workers().find(({ workerId }) => workerId === input.workerId);
      if (!worker) throw new FleetError(`There is no worker "${input.workerId}".`);
      return ctx.control.switchWorkerTo(input.workerId, parsePath(input.path, worker.envelope), ctx.who);
    }),
});
