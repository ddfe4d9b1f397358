/** ledger.*: what each rollout was predicted to do, beside what was measured. */
import type { LedgerEntry } from '../control/control-types.ts';
import { listLimit } from './inputs.ts';
import { query, router } from './trpc.ts';

export const ledger = router({
  list: query
    .input(listLimit)
    .query(({ ctx, input }): Promise<LedgerEntry[]> => ctx.control.ledger(input.limit)),
});
