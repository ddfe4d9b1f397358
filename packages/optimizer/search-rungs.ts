/**
 * Successive halving: all candidates on a short trace, the better quarter on a longer one, until a few are left
 * (algorithms.md f). Traces are nested and shared by all, so that what is common to them cancels. Called by
 * search-paths.ts. Pure.
 */
import { median } from './quantile.ts';
import type { Arrival } from './replay.ts';

/** Of trace time; the first is longer where sessions are: half a session says nothing of its cache. */
const RUNG_MS = [60_000, 120_000, 300_000] as const;
/** A bound on work where traffic is dense. */
const MOST_ARRIVALS = [100, 200, 400] as const;
/** A quieter window is told by more of its time. */
const LEAST_ARRIVALS = [60, 100, 200] as const;
const LEAST_GROWTH = 1.2;
const KEPT_SHARE = 1 / 4;
export const MOST_FINALISTS = 3;
/** So many enter; candidates come with the smallest changes first. */
export const MOST_ENTRANTS = 64;

/** The newest arrivals for each rung, the last rung's the most. */
export function rungsOf(arrivals: readonly Arrival[]): (readonly Arrival[])[] {
  const endsAt = arrivals.at(-1)?.at ?? 0;
  const sessionMs = medianSessionMs(arrivals);
  const counts = RUNG_MS.map((leastMs, rung) => {
    const spanMs = Math.max(leastMs, sessionMs * (leastMs / RUNG_MS[0]));
    const inSpan = arrivals.filter(({ at }) => at > endsAt - spanMs).length;
    const count = Math.min(MOST_ARRIVALS[rung] ?? 0, Math.max(LEAST_ARRIVALS[rung] ?? 0, inSpan));
    return Math.min(count, arrivals.length);
  });
  // A rung hardly longer than the one before would only repeat it.
  const worth = counts.filter((count, rung) => rung === 0 || count > LEAST_GROWTH * (counts[rung - 1] ?? 0));
  return worth.map((count) => arrivals.slice(-count));
}

/** From a session's first arrival to its last end; single requests are no sessions. 0 where there are none. */
export function medianSessionMs(arrivals: readonly Arrival[]): number {
  const sessions = new Map<string, { count: number; from: number; to: number }>();
  for (const { session, at, e2eMs } of arrivals) {
    const known = sessions.get(session);
    if (known === undefined) sessions.set(session, { count: 1, from: at, to: at + e2eMs });
    else {
      known.count += 1;
      known.to = Math.max(known.to, at + e2eMs);
    }
  }
  const lengths = [...sessions.values()].filter(({ count }) => count > 1).map(({ from, to }) => to - from);
  return lengths.length === 0 ? 0 : median(lengths);
}

export interface Halving<Entry> {
  /** All that the longest trace was run for, best first. */
  readonly lastRung: readonly Entry[];
  /** Of those that entered, how many the first trace left standing. */
  readonly standingCount: number;
}

/**
 * @param run replays a candidate on a rung
 * @param rank drops what may not win and puts the best first
 */
export function halve<Candidate, Entry>(
  candidates: readonly Candidate[],
  rungCount: number,
  run: (candidate: Candidate, rung: number) => Entry,
  rank: (entries: readonly Entry[], rung: number) => readonly Entry[],
  candidateOf: (entry: Entry) => Candidate,
): Halving<Entry> {
  let entrants = candidates.slice(0, MOST_ENTRANTS);
  let standing: readonly Entry[] = [];
  let standingCount = 0;
  for (let rung = 0; rung < rungCount; rung += 1) {
    standing = rank(
      entrants.map((candidate) => run(candidate, rung)),
      rung,
    );
    if (rung === 0) standingCount = standing.length;
    if (rung === rungCount - 1) break;
    const kept = Math.max(MOST_FINALISTS, Math.ceil(entrants.length * KEPT_SHARE));
    entrants = standing.slice(0, kept).map(candidateOf);
  }
  return { lastRung: standing, standingCount };
}
