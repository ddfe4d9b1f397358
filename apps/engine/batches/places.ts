/** So many at once, the others in the order in which they came. Used for the batches that are read or run. */
export class Places {
  #freeCount: number;
  readonly #waiting: (() => void)[] = [];

  constructor(count: number) {
    this.#freeCount = count;
  }

  /** Resolves with what gives the place back; null where the signal came first. */
  async take(signal: AbortSignal): Promise<(() => void) | null> {
    if (signal.aborted) return null;
    if (this.#freeCount > 0) this.#freeCount -= 1;
    else if (!(await this.#turn(signal))) return null;
    let isHeld = true;
    return () => {
      if (!isHeld) return;
      isHeld = false;
      const next = this.#waiting.shift();
      if (next === undefined) this.#freeCount += 1;
      else next();
    };
  }

  #turn(signal: AbortSignal): Promise<boolean> {
    return new Promise((resolve) => {
      const come = (): void => {
        signal.removeEventListener('abort', leave);
        resolve(true);
      };
      const leave = (): void => {
        this.#waiting.splice(this.#waiting.indexOf(come), 1);
        resolve(false);
      };
      this.#waiting.push(come);
      signal.addEventListener('abort', leave, { once: true });
    });
  }
}
