/**
 * How many lines of batch files may be open at once, and which batch goes next. Pure; asked by line-dispatch.ts whenever a
 * line has ended and a few times a second. The scheduler's `flex` tier keeps an open line behind requests that wait; this
 * keeps lines from taking the places that requests will need, since a running line gives its place back only at its end.
 */
export interface PacingView {
  /** Sequences that the live paths may run at once, over all workers; 0 where nothing can be computed now. */
  readonly slotCount: number;
  /** The most sequences that were inside at once of late and are not lines: running or waiting. */
  readonly requestCount: number;
  /** Of all workers' KV blocks. */
  readonly kvUsedShare: number;
  readonly openLineCount: number;
}

/** Whatever the machine: lines are held in memory while they are open. */
export const MOST_OPEN_LINES = 256;
const FREE_SHARE_ALONE = 1 / 8;
const FREE_SHARE_BESIDE = 1 / 4;
/** Lines beside requests take no more than this: every running sequence makes a step longer. */
const MOST_SHARE_BESIDE = 1 / 4;
/** Above it another sequence would soon push one out. */
const KV_SHARE_FULL = 0.85;

/**
 * At least 1 wherever anything can be computed: one waiting line ages in the scheduler's queue, so that a batch moves on
 * even beside traffic that never ends.
 */
export function openLinesAllowed(view: PacingView): number {
  const { slotCount, requestCount, openLineCount } = view;
  if (slotCount === 0) return 0;
  const freeShare = requestCount === 0 ? FREE_SHARE_ALONE : FREE_SHARE_BESIDE;
  const mostShare = requestCount === 0 ? 1 : MOST_SHARE_BESIDE;
  const free = slotCount - requestCount - Math.ceil(slotCount * freeShare);
  const most = Math.min(free, Math.floor(slotCount * mostShare), MOST_OPEN_LINES);
  const held = view.kvUsedShare > KV_SHARE_FULL ? Math.min(most, openLineCount) : most;
  return Math.max(1, held);
}

/** As long as a line may well run: who pauses for less would come back to find the places taken. */
const RECENT_MS = 5000;

/** The most of something over the last RECENT_MS. Times arrive as arguments and do not go back. */
export class RecentPeak {
  /** Falling counts at rising times: whatever stands before a higher one will never be the peak. */
  readonly #falling: { readonly at: number; readonly count: number }[] = [];

  note(count: number, at: number): number {
    while ((this.#falling.at(-1)?.count ?? Number.POSITIVE_INFINITY) <= count) this.#falling.pop();
    this.#falling.push({ at, count });
    while ((this.#falling[0]?.at ?? at) < at - RECENT_MS) this.#falling.shift();
    return this.#falling[0]?.count ?? count;
  }
}

export interface BatchTurn {
  readonly batchId: string;
  readonly tenant: string;
  readonly openLineCount: number;
  /** Counts up with every line started, over all batches; 0: never. */
  readonly lastTurn: number;
}

/** The tenant with the fewest open lines first, then the batch with the fewest, then the one served longest ago. */
export function nextBatch(turns: readonly BatchTurn[]): string | null {
  const ofTenant = new Map<string, number>();
  for (const { tenant, openLineCount } of turns) {
    ofTenant.set(tenant, (ofTenant.get(tenant) ?? 0) + openLineCount);
  }
  const open = (turn: BatchTurn): number => ofTenant.get(turn.tenant) ?? 0;
  const [first] = [...turns].sort(
    (a, b) => open(a) - open(b) || a.openLineCount - b.openLineCount || a.lastTurn - b.lastTurn,
  );
  return first?.batchId ?? null;
}
