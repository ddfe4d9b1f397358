/** rollouts.*: the guarded changes under way or over, rolling one back, and the kill switch over all of them. */
import { z } from 'zod';
import type { KillSwitch } from '../control/control-store.ts';
import type { RolloutView } from '../control/control-types.ts';
import { identifier, listLimit } from './inputs.ts';
import { mutation, query, router } from './trpc.ts';

const one = z.strictObject({ rolloutId: identifier });

export const rollouts = router({
  list: query
    .input(listLimit)
    .query(({ ctx, input }): Promise<RolloutView[]> => ctx.control.rollouts(input.limit)),
  progress: query
    .input(one)
    .query(({ ctx, input }): Promise<RolloutView> => ctx.control.rollout(input.rolloutId)),
  rollBack: mutation
    .input(one)
    .mutation(({ ctx, input }): Promise<RolloutView> => ctx.control.rollBack(input.rolloutId, ctx.who)),
  killSwitch: query.query(({ ctx }): KillSwitch => ctx.control.killSwitch()),
  setKillSwitch: mutation
    .input(z.strictObject({ isOn: z.boolean(), reason: z.string().max(1000).default('') }))
    .mutation(
      ({ ctx, input }): Promise<KillSwitch> => ctx.control.setKillSwitch(input.isOn, input.reason, ctx.who),
    ),
});
