/**
 * So many at once, and so many of one owner, the others in the order in which they came. Used for the batches that are read,
 * run and put together, so that open files and work stay bounded and no tenant takes all of it.
 */
interface Waiting {
  readonly owner: string;
  come(): void;
}

export class Places {
  readonly #count: number;
  readonly #countPerOwner: number;
  readonly #held = new Map<string, number>();
  readonly #waiting: Waiting[] = [];
  #heldCount = 0;

  constructor(count: number, countPerOwner: number) {
    this.#count = count;
    this.#countPerOwner = countPerOwner;
  }

  /** Resolves with what gives the place back; null where the signal came first. */
  async take(owner: string, signal: AbortSignal): Promise<(() => void) | null> {
    if (signal.aborted) return null;
    if (this.#isFreeFor(owner)) this.#hold(owner, 1);
    else if (!(await this.#turn(owner, signal))) return null;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      this.#hold(owner, -1);
      const at = this.#waiting.findIndex((each) => this.#isFreeFor(each.owner));
      const [next] = at < 0 ? [] : this.#waiting.splice(at, 1);
      if (next === undefined) return;
      this.#hold(next.owner, 1);
      next.come();
    };
  }

  #isFreeFor(owner: string): boolean {
    return this.#heldCount < this.#count && (this.#held.get(owner) ?? 0) < this.#countPerOwner;
  }

  #hold(owner: string, change: number): void {
    this.#heldCount += change;
    const count = (this.#held.get(owner) ?? 0) + change;
    if (count === 0) this.#held.delete(owner);
    else this.#held.set(owner, count);
  }

  #turn(owner: string, signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const waiting: Waiting = {
        owner,
        come: () => {
          signal.removeEventListener('abort', leave);
          resolve(true);
        },
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(waiting), 1);
        resolve(false);
      };
      this.#waiting.push(waiting);
      signal.addEventListener('abort', leave, { once: true });
    });
  }
}
