/**
 * What comes in next on the virtual clock: requests at their recorded times, or, where one waited for another, when that
 * one has ended. Used by replay.ts. Pure, one owner.
 */
import { type Answered, closedLoopLinks, type Link } from './closed-loop.ts';
import { DueQueue } from './due-queue.ts';

export class ArrivalQueue {
  readonly #due = new DueQueue<number>();
  readonly #followers = new Map<number, { index: number; link: Link }[]>();

  /** @param arrivals in order of time */
  constructor(arrivals: readonly Answered[]) {
    closedLoopLinks(arrivals).forEach((link, index) => {
      if (link === null) {
        this.#due.add(arrivals[index]?.at ?? 0, index);
        return;
      }
      const followers = this.#followers.get(link.index);
      if (followers === undefined) this.#followers.set(link.index, [{ index, link }]);
      else followers.push({ index, link });
    });
  }

  /** The next request, or null where none is due. */
  take(): { readonly index: number; readonly at: number } | null {
    const due = this.#due.take();
    return due === null ? null : { index: due.item, at: due.at };
  }

  /** When the next one comes; null when nothing is due. */
  nextAt(): number | null {
    return this.#due.nextAt();
  }

  /** Request `index` has ended: whoever waited for it comes after its gap. */
  ended(index: number, now: number): void {
    for (const follower of this.#followers.get(index) ?? []) {
      this.#due.add(now + follower.link.gapMs, follower.index);
    }
  }
}
