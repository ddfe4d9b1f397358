/** paths.*: the execution paths that can be named on the present workers, and which of them is live. */
import { namedPaths, pathId } from '@variator/kernels/execution-path';
import type { PathSummary } from './contract.ts';
import { query, router } from './trpc.ts';

export const paths = router({
  list: query.query(({ ctx }): PathSummary[] => {
    const summaries = new Map<string, PathSummary>();
    for (const worker of ctx.fleet.workers()) {
      for (const [name, path] of Object.entries(namedPaths(worker.envelope))) {
        const id = pathId(path);
        const before = summaries.get(name);
        summaries.set(name, {
          name,
          pathId: id,
          path,
          isLive: (before?.isLive ?? false) || worker.pathId === id,
        });
      }
    }
    const named = [...summaries.values()];
    // A live path made by a rollout need not have a name of its own.
    for (const worker of ctx.fleet.workers()) {
      if (named.some((summary) => summary.pathId === worker.pathId)) continue;
      named.push({ name: worker.pathId, pathId: worker.pathId, path: worker.path, isLive: true });
    }
    return named;
  }),
});
