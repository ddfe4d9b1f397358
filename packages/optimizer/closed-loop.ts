/**
 * Which requests waited for another to finish. An agent sends its next turn when the last was answered and its tools have
 * run; a client that keeps a fixed number under way sends the next one when one is answered. Replayed at recorded times, either
 * would hide what a faster path gains (algorithms.md f). Used by arrival-queue.ts; infers from times and session names alone.
 */
export interface Answered {
  /** Epoch ms. */
  readonly at: number;
  /** From arrival to its end. */
  readonly e2eMs: number;
  /** '' of none. */
  readonly session: string;
}

/** This request came `gapMs` after the one at `index` had ended. */
export interface Link {
  readonly index: number;
  readonly gapMs: number;
}

interface End {
  readonly index: number;
  readonly endedAt: number;
}

/** A client of a flood answers within this; and within a quarter of the mean time between requests, or chance would do as well. */
const MOST_GAP_MS = 50;
const MOST_GAP_SHARE = 0.25;
/** Below this share the coincidences of independent arrivals are more than the links. */
const LEAST_SHARE = 0.6;
/** A session whose requests come while another of it is under way more often than this does not take turns. */
const MOST_OVERLAP = 0.2;
/** A client has the last token a little before the end is recorded. */
const END_SLACK_MS = 5;

/** For each request in order of arrival, what it waited for; null for those that came by themselves. */
export function closedLoopLinks(requests: readonly Answered[]): (Link | null)[] {
  const links: (Link | null)[] = requests.map(() => null);
  const bySession = placesBySession(requests);
  const rest: number[] = [];
  for (const [session, places] of bySession) {
    const turns = session === '' || places.length < 2 ? null : turnsOf(requests, places);
    if (turns === null) rest.push(...places);
    else place(links, places, turns);
  }
  rest.sort((a, b) => a - b);
  const floods = floodLinks(rest.map((index) => requests[index] as Answered));
  const inAll = (link: Link): Link => ({ index: rest[link.index] ?? 0, gapMs: link.gapMs });
  place(
    links,
    rest,
    floods.map((link) => (link === null ? null : inAll(link))),
  );
  return links;
}

/** The places of those that belong together: a session whose requests take turns is one unit, everything else is by itself. */
export function sessionUnits(requests: readonly Answered[]): (readonly number[])[] {
  return [...placesBySession(requests)]
    .flatMap(([session, places]): (readonly number[])[] => {
      const isUnit = session !== '' && (places.length === 1 || turnsOf(requests, places) !== null);
      return isUnit ? [places] : places.map((index) => [index]);
    })
    .sort(([a = 0], [b = 0]) => a - b);
}

function placesBySession(requests: readonly Answered[]): Map<string, number[]> {
  const bySession = new Map<string, number[]>();
  requests.forEach(({ session }, index) => {
    const places = bySession.get(session);
    if (places === undefined) bySession.set(session, [index]);
    else places.push(index);
  });
  return bySession;
}

/**
 * The request of the session that had ended last when each one came; null for the first, and for one that came while
 * nothing of it had ended. Null as a whole where the session's requests do not take turns.
 */
function turnsOf(requests: readonly Answered[], places: readonly number[]): (Link | null)[] | null {
  const links: (Link | null)[] = [];
  const ends: End[] = [];
  let latest: End | null = null;
  let overlapCount = 0;
  for (const index of places) {
    const { at, e2eMs } = requests[index] as Answered;
    const hasEnded = (end: End): boolean => end.endedAt <= at + END_SLACK_MS;
    let last: End | null = latest;
    if (latest !== null && !hasEnded(latest)) {
      overlapCount += 1;
      if (overlapCount > MOST_OVERLAP * (places.length - 1)) return null;
      last = ends
        .filter(hasEnded)
        .reduce<End | null>((best, end) => (end.endedAt > (best?.endedAt ?? 0) ? end : best), null);
    }
    links.push(last === null ? null : { index: last.index, gapMs: Math.max(0, at - last.endedAt) });
    const end: End = { index, endedAt: at + e2eMs };
    ends.push(end);
    if (latest === null || end.endedAt >= latest.endedAt) latest = end;
  }
  return links;
}

function floodLinks(requests: readonly Answered[]): (Link | null)[] {
  const ends = requests
    .map((request, index) => ({ index, endedAt: request.at + request.e2eMs }))
    .sort((a, b) => a.endedAt - b.endedAt);
  const links: (Link | null)[] = [];
  const spanMs = (requests.at(-1)?.at ?? 0) - (requests[0]?.at ?? 0);
  const mostGapMs = Math.min(MOST_GAP_MS, (MOST_GAP_SHARE * spanMs) / Math.max(1, requests.length - 1));
  let oldest = 0;
  // Every end sets at most one request free: the first that comes after it.
  for (const { at } of requests) {
    while (oldest < ends.length && (ends[oldest]?.endedAt ?? 0) < at - mostGapMs) oldest += 1;
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

function place(links: (Link | null)[], places: readonly number[], own: readonly (Link | null)[]): void {
  for (const [turn, index] of places.entries()) links[index] = own[turn] ?? null;
}
