/** What comes when: a binary heap by time, and of equal times by order of entry. Used by the twin's sources. Pure, one owner. */
interface Due<T> {
  readonly at: number;
  readonly order: number;
  readonly item: T;
}

export class DueQueue<T> {
  readonly #heap: Due<T>[] = [];
  #entered = 0;

  get size(): number {
    return this.#heap.length;
  }

  /** The earliest time; null of nothing. */
  nextAt(): number | null {
    return this.#heap[0]?.at ?? null;
  }

  add(at: number, item: T): void {
    const due = { at, order: this.#entered, item };
    this.#entered += 1;
    let place = this.#heap.push(due) - 1;
    while (place > 0) {
      const parent = (place - 1) >>> 1;
      const above = this.#heap[parent];
      if (above === undefined || !isBefore(due, above)) break;
      this.#heap[place] = above;
      place = parent;
    }
    this.#heap[place] = due;
  }

  /** The earliest; null of nothing. */
  take(): { readonly at: number; readonly item: T } | null {
    const first = this.#heap[0];
    const last = this.#heap.pop();
    if (first === undefined || last === undefined) return null;
    if (this.#heap.length > 0) this.#sink(last);
    return first;
  }

  #sink(due: Due<T>): void {
    let place = 0;
    for (;;) {
      let child = 2 * place + 1;
      let below = this.#heap[child];
      if (below === undefined) break;
      const right = this.#heap[child + 1];
      if (right !== undefined && isBefore(right, below)) {
        child += 1;
        below = right;
      }
      if (!isBefore(below, due)) break;
      this.#heap[place] = below;
      place = child;
    }
    this.#heap[place] = due;
  }
}

const isBefore = <T>(a: Due<T>, b: Due<T>): boolean => a.at < b.at || (a.at === b.at && a.order < b.order);
