/** objectives.*: the policy, read and changed. Ranges and the refusal of "automatic" are control/policy.ts's. */
import type { Policy } from '../control/control-types.ts';
import { policyChangeSchema } from '../control/policy.ts';
import { mutation, query, router } from './trpc.ts';

export const objectives = router({
  get: query.query(({ ctx }): Policy => ctx.control.policy()),
  set: mutation
    .input(policyChangeSchema)
    .mutation(({ ctx, input }): Promise<Policy> => ctx.control.setPolicy(input, ctx.who)),
});
