/**
 * The tRPC API, one noun a file, shapes as contract.ts lists them. Served by admin-server.ts; dashboard, optimizer and
 * scripts import its type. Adds nothing of its own.
 */
import { calibration } from './calibration.ts';
import { costs } from './costs.ts';
import { fits } from './fits.ts';
import { ledger } from './ledger.ts';
import { objectives } from './objectives.ts';
import { overview } from './overview.ts';
import { paths } from './paths.ts';
import { proposals } from './proposals.ts';
import { regimes } from './regimes.ts';
import { rollouts } from './rollouts.ts';
import { router } from './trpc.ts';
import { workers } from './workers.ts';

export const appRouter = router({
  overview,
  regimes,
  costs,
  objectives,
  workers,
  paths,
  fits,
  calibration,
  proposals,
  rollouts,
  ledger,
});

export type AppRouter = typeof appRouter;
