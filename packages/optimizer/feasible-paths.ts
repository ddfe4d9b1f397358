/**
 * The first filter of a search, by arithmetic alone: what no replay needs to be asked. Called by search-paths.ts. Pure.
 * A path is out when its fit says that a stream alone on the device misses its ITL objective too often, or when its running
 * batch is more than twice what the KV blocks can hold of the window's smallest requests.
 */
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import { predictMs, type StepTimeFit } from '@variator/scheduler/step-time';
import type { Arrival } from './replay.ts';

export interface FittedPath {
  readonly path: ExecutionPath;
  readonly fit: StepTimeFit;
}

/** Late gaps that still keep the objective, of all gaps: what a p99 at the objective leaves. */
export const MOST_LATE_GAPS = 0.01;

export function feasiblePaths<Candidate extends FittedPath>(
  candidates: readonly Candidate[],
  incumbent: FittedPath,
  arrivals: readonly Arrival[],
  envelope: Envelope,
): Candidate[] {
  const mostAtOnce = Math.max(1, mostInCache(arrivals, envelope));
  const lateAlone = new Map<StepTimeFit, number>();
  const late = (fit: StepTimeFit): number => {
    const known = lateAlone.get(fit) ?? shareLateAlone(fit, arrivals);
    lateAlone.set(fit, known);
    return known;
  };
  // Where the incumbent cannot keep it either, less late is better than nothing.
  const allowed = Math.max(MOST_LATE_GAPS, late(incumbent.fit));
  return candidates.filter(
    ({ path, fit }) => path.maxRunningCount <= Math.max(4, 2 * mostAtOnce) && late(fit) <= allowed,
  );
}

/** Of the streamed gaps, how many a device that does nothing else would let be late. */
function shareLateAlone(fit: StepTimeFit, arrivals: readonly Arrival[]): number {
  let gapCount = 0;
  let lateCount = 0;
  for (const { isStreamed, objectives, promptTokenCount, completionTokenCount } of arrivals) {
    if (!isStreamed || completionTokenCount < 2) continue;
    const gapMs = predictMs(fit, {
      tokenCount: 1,
      decodeSequenceCount: 1,
      prefillSequenceCount: 0,
      prefillTokenCount: 0,
      decodeContextTokens: promptTokenCount + completionTokenCount / 2,
      prefillAttention: 0,
    });
    gapCount += completionTokenCount - 1;
    if (objectives.itlMs > 0 && gapMs > objectives.itlMs) lateCount += completionTokenCount - 1;
  }
  return lateCount / Math.max(1, gapCount);
}

/** Prefixes may be shared, so a request is counted with what it does not find cached. */
function mostInCache(arrivals: readonly Arrival[], { kvBlockCount, kvBlockSize }: Envelope): number {
  const blocks = arrivals.map(({ promptTokenCount, cachedTokenCount, completionTokenCount }) =>
    Math.ceil((promptTokenCount - cachedTokenCount + completionTokenCount) / kvBlockSize),
  );
  return Math.floor(kvBlockCount / Math.max(1, Math.min(...blocks)));
}
