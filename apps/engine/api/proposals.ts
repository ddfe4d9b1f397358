/** proposals.*: what the optimizer suggests, and a person's decision on it. The rules are control/open-control.ts's. */
import { z } from 'zod';
import type { Proposal } from '../control/control-types.ts';
import { identifier, listLimit, proposalDraft } from './inputs.ts';
import { mutation, query, router } from './trpc.ts';

export const proposals = router({
  list: query
    .input(listLimit)
    .query(({ ctx, input }): Promise<Proposal[]> => ctx.control.proposals(input.limit)),
  create: mutation
    .input(proposalDraft)
    .mutation(({ ctx, input }): Promise<Proposal> => ctx.control.createProposal(input, ctx.who)),
  approve: mutation
    .input(z.strictObject({ proposalId: identifier }))
    .mutation(
      ({ ctx, input }): Promise<{ rolloutId: string }> => ctx.control.approve(input.proposalId, ctx.who),
    ),
  reject: mutation
    .input(z.strictObject({ proposalId: identifier, reason: z.string().max(1000).default('') }))
    .mutation(
      ({ ctx, input }): Promise<Proposal> => ctx.control.reject(input.proposalId, input.reason, ctx.who),
    ),
});
