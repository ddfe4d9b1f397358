/** proposals.*: what the optimizer suggests, and a person's decision on it. The rules are control/open-control.ts's. */
import { z } from 'zod';
import type { Proposal } from '../control/control-types.ts';
import { identifier, listLimit, proposalDraft } from './inputs.ts';
import { mutation, query, router } from './trpc.ts';

export const proposals = router({
  list: query
    .input(listLimit)
    .query(
      async ({ ctx, input }): Promise<Proposal[]> => (await ctx.control.proposals(input.limit)).map(asListed),
    ),
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
  withdraw: mutation
    .input(z.strictObject({ proposalId: identifier, reason: z.string().max(1000).default('') }))
    .mutation(
      ({ ctx, input }): Promise<Proposal> => ctx.control.withdraw(input.proposalId, input.reason, ctx.who),
    ),
});

/** Pages ask every second: what a decided one was chosen from is no longer asked about, and is most of its size. */
function asListed(proposal: Proposal): Proposal {
  if (proposal.state === 'open') return proposal;
  const { considered: _, ...evidence } = proposal.evidence;
  return { ...proposal, evidence };
}
