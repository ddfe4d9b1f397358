/**
 * A step in parts, where it has more rows with logits (sampled, drafted or scored) than the device has memory for: one after
 * the other they compute what the step would. A chunk of which too many tokens are scored is cut, the rest following in the
 * next part. Used by cuda-device.ts; batch-invariant kernels give every row the same bits by whatever cut. Pure.
 */
import type { BatchEntry } from '@variator/scheduler/batch';
import type { TokenLogprobs } from '@variator/scheduler/sequence';

interface StepPart {
  readonly entries: BatchEntry[];
  /** Which entry of the step each belongs to. */
  readonly sources: number[];
}

export function stepParts(entries: readonly BatchEntry[], mostHeadRows: number): StepPart[] {
  const parts: StepPart[] = [];
  let rows = Number.POSITIVE_INFINITY;
  for (const [source, entry] of entries.entries()) {
    for (const piece of pieces(entry, mostHeadRows)) {
      const count = headRowsOf(piece);
      const part = parts.at(-1);
      if (part === undefined || rows + count > mostHeadRows || part.sources.at(-1) === source) {
        parts.push({ entries: [piece], sources: [source] });
        rows = count;
      } else {
        part.entries.push(piece);
        part.sources.push(source);
        rows += count;
      }
    }
  }
  return parts;
}

const isScored = ({ sampling, scoredTokenIds = [] }: BatchEntry, at: number): boolean =>
  sampling.logprobCount !== undefined && (scoredTokenIds[at] ?? -1) >= 0;

function headRowsOf(entry: BatchEntry): number {
  const scored = entry.tokenIds.filter((_, at) => isScored(entry, at)).length;
  return scored + (entry.isSampled ? 1 + (entry.draftCount ?? 0) : 0);
}

/** The entry, or its tokens in as many pieces as it takes; the last one samples where the entry does. */
function pieces(entry: BatchEntry, mostHeadRows: number): BatchEntry[] {
  if (headRowsOf(entry) <= mostHeadRows) return [entry];
  const ends: number[] = [];
  let rows = 0;
  for (const at of entry.tokenIds.keys()) {
    const isLast = at === entry.tokenIds.length - 1;
    const count = (isScored(entry, at) ? 1 : 0) + (isLast && entry.isSampled ? 1 : 0);
    if (rows + count > mostHeadRows && at > (ends.at(-1) ?? 0)) {
      ends.push(at);
      rows = 0;
    }
    rows += count;
  }
  ends.push(entry.tokenIds.length);
  return ends.map((end, index) => {
    const begin = ends[index - 1] ?? 0;
    return {
      ...entry,
      tokenIds: entry.tokenIds.slice(begin, end),
      contextLength: entry.contextLength + begin,
      isSampled: entry.isSampled && end === entry.tokenIds.length,
      ...(entry.scoredTokenIds === undefined
        ? {}
        : { scoredTokenIds: entry.scoredTokenIds.slice(begin, end) }),
    };
  });
}

export interface PartResult {
  readonly sampledTokenIds: Int32Array;
  readonly afterDraftTokenIds?: readonly (Int32Array | null)[];
  readonly logprobs: readonly (readonly TokenLogprobs[])[] | null;
}

/** What the parts gave, by entry of the step. */
export function joinParts(
  entryCount: number,
  parts: readonly StepPart[],
  results: readonly PartResult[],
): PartResult {
  const [only] = results;
  if (results.length === 1 && only !== undefined) return only;
  const sampledTokenIds = new Int32Array(entryCount).fill(-1);
  const afterDraftTokenIds: (Int32Array | null)[] = Array.from({ length: entryCount }, () => null);
  const logprobs: TokenLogprobs[][] = Array.from({ length: entryCount }, () => []);
  parts.forEach(({ sources }, index) => {
    const result = results[index];
    sources.forEach((source, at) => {
      const token = result?.sampledTokenIds[at] ?? -1;
      if (token >= 0) sampledTokenIds[source] = token;
      afterDraftTokenIds[source] = result?.afterDraftTokenIds?.[at] ?? afterDraftTokenIds[source] ?? null;
      logprobs[source]?.push(...(result?.logprobs?.[at] ?? []));
    });
  });
  return {
    sampledTokenIds,
    ...(afterDraftTokenIds.some((each) => each !== null) ? { afterDraftTokenIds } : {}),
    logprobs: results.some((result) => result.logprobs !== null) ? logprobs : null,
  };
}
