/**
 * The execution paths worth asking about from where a worker stands: a trust region of two settings, one risky change at
 * a time (algorithms.md f). Called by propose.ts and by the service, which calibrates what is new. Pure.
 */
import {
  diffPaths,
  type Envelope,
  type ExecutionPath,
  pathFaults,
  pathId,
} from '@variator/kernels/execution-path';

const TOKEN_BUDGETS = [16, 32, 64, 128, 256, 512];
const RUNNING_COUNTS = [1, 4, 8, 16, 32];

/** Legal paths other than the incumbent. One whose kernels differ differs in nothing else. */
export function candidatePaths(incumbent: ExecutionPath, envelope: Envelope): ExecutionPath[] {
  const limits = TOKEN_BUDGETS.flatMap((tokenBudget) =>
    RUNNING_COUNTS.map((maxRunningCount): ExecutionPath => ({ ...incumbent, tokenBudget, maxRunningCount })),
  );
  const oneLimit = [
    ...TOKEN_BUDGETS.map((tokenBudget): ExecutionPath => ({ ...incumbent, tokenBudget })),
    ...RUNNING_COUNTS.map((maxRunningCount): ExecutionPath => ({ ...incumbent, maxRunningCount })),
  ];
  const kernels = envelope.linearVariants.map((linear): ExecutionPath => ({ ...incumbent, linear }));
  const seen = new Set([pathId(incumbent)]);
  return [...limits, ...oneLimit, ...kernels].filter((path) => {
    const id = pathId(path);
    if (seen.has(id)) return false;
    seen.add(id);
    return pathFaults(path, envelope).length === 0 && diffPaths(incumbent, path).length <= 2;
  });
}
