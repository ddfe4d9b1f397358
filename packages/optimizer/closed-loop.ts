/**
 * Which requests waited for another to finish: clients that keep a fixed number under way send the next one when one is
 * answered. Replayed at recorded times, such a flood would hide what a faster path gains (algorithms.md f). Used by
 * replay.ts; infers from times alone, and only where most of a window looks like that.
 */
export interface Answered {
  /** Epoch ms. */
  readonly at: number;
  /** From arrival to its end. */
  readonly e2eMs: number;
}

/** This request came `gapMs` after the one at `index` had ended. */
export interface Link {
  readonly index: number;
  readonly gapMs: number;
}

/** A client that waits answers within this. */
const MOST_GAP_MS = 50;
/** Below this share the coincidences of independent arrivals are more than the links. */
const LEAST_SHARE = 0.6;

/** For each request in order of arrival, what it waited for; null for those that came by themselves. */
export function closedLoopLinks(requests: readonly Answered[]): (Link | null)[] {
  const ends = requests
    .map((request, index) => ({ index, endedAt: request.at + request.e2eMs }))
    .sort((a, b) => a.endedAt - b.endedAt);
  const links: (Link | null)[] = [];
  let oldest = 0;
  // Every end sets at most one request free: the first that comes after it.
  for (const { at } of requests) {
    while (oldest < ends.length && (ends[oldest]?.endedAt ?? 0) < at - MOST_GAP_MS) oldest += 1;
    const end = ends[oldest];
    if (end !== undefined && end.endedAt <= at) {
      links.push({ index: end.index, gapMs: at - end.endedAt });
      oldest += 1;
    } else {
      links.push(null);
    }
  }
  const share = links.filter((link) => link !== null).length / Math.max(1, links.length);
  return share >= LEAST_SHARE ? links : links.map(() => null);
}
