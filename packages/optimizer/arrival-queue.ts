/**
 * What comes in next on the virtual clock: requests at their recorded times, or, where one waited for another, when that
 * one has ended. Used by replay.ts. Pure, one owner.
 */
import { closedLoopLinks, type Link } from './closed-loop.ts';

interface Due {
  readonly index: number;
  readonly at: number;
}

export class ArrivalQueue {
  /** Ascending by time from `#next` on. */
  readonly #due: Due[] = [];
  readonly #followers = new Map<number, { index: number; link: Link }[]>();
  #next = 0;

  constructor(arrivals: readonly { readonly at: number; readonly e2eMs: number }[]) {
    closedLoopLinks(arrivals).forEach((link, index) => {
      if (link === null) this.#due.push({ index, at: arrivals[index]?.at ?? 0 });
      else this.#followers.set(link.index, [...(this.#followers.get(link.index) ?? []), { index, link }]);
    });
  }

  /** The next request, or null where none is due. */
  take(): Due | null {
    const due = this.#due[this.#next];
    if (due === undefined) return null;
    this.#next += 1;
    return due;
  }

  /** When the next one comes; null when nothing is due. */
  nextAt(): number | null {
    return this.#due[this.#next]?.at ?? null;
  }

  /** Request `index` has ended: whoever waited for it comes after its gap. */
  ended(index: number, now: number): void {
    for (const follower of this.#followers.get(index) ?? []) {
      const due = { index: follower.index, at: now + follower.link.gapMs };
      let place = this.#due.length;
      while (place > this.#next && (this.#due[place - 1]?.at ?? 0) > due.at) place -= 1;
      this.#due.splice(place, 0, due);
    }
  }
}
