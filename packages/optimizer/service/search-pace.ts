/**
 * When a worker's search is worth its time again: soon after something has changed, ever more rarely while nothing has.
 * Called by suggest-paths.ts around each search. So that searching takes less than a hundredth of a core in a steady
 * regime, however long one search takes. Pure.
 */

/** What a search looked at. */
export interface Circumstances {
  /** Any difference is a change: path, regime, objectives, what was tried. */
  readonly identity: string;
  /** Amounts, which vary a little from window to window; a factor of 1.7 is a change. */
  readonly amounts: Readonly<Record<string, number>>;
}

export interface SearchPace {
  readonly circumstances: Circumstances;
  /** Whatever changes. */
  readonly earliestAt: number;
  /** While nothing changes. */
  readonly againAt: number;
  readonly restMs: number;
}

/** Changes come in rows (each new fit is one), and may take a twelfth of a core then. */
const LEAST_REST = 12;
/** Of what the search took. */
const STEADY_REST = 200;
/** Each search that found nothing changed waits for twice as long as the one before, up to this. */
const MOST_REST_MS = 600_000;
const LEAST_FACTOR = 1.7;

export const mayChange = (pace: SearchPace | undefined, now: number): boolean =>
  pace === undefined || now >= pace.earliestAt;

export function isDue(pace: SearchPace | undefined, circumstances: Circumstances, now: number): boolean {
  if (pace === undefined) return true;
  if (now < pace.earliestAt) return false;
  return now >= pace.againAt || hasChanged(pace.circumstances, circumstances);
}

export function paceAfter(
  before: SearchPace | undefined,
  circumstances: Circumstances,
  tookMs: number,
  now: number,
): SearchPace {
  const isRepeat = before !== undefined && !hasChanged(before.circumstances, circumstances);
  const ownRestMs = STEADY_REST * tookMs;
  const restMs = Math.min(MOST_REST_MS, isRepeat ? Math.max(ownRestMs, 2 * before.restMs) : ownRestMs);
  return { circumstances, earliestAt: now + LEAST_REST * tookMs, againAt: now + restMs, restMs };
}

function hasChanged(before: Circumstances, after: Circumstances): boolean {
  if (before.identity !== after.identity) return true;
  const names = new Set([...Object.keys(before.amounts), ...Object.keys(after.amounts)]);
  return [...names].some((name) => {
    const ratio = (1 + (after.amounts[name] ?? 0)) / (1 + (before.amounts[name] ?? 0));
    return Math.abs(Math.log(ratio)) > Math.log(LEAST_FACTOR);
  });
}
