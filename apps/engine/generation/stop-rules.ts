/**
 * Stop strings on a growing text: holds back what could still begin one, cuts where the first one is complete. Pure, one
 * per answer, used by answer-text.ts. The result does not depend on how the text was split into pushes.
 */
export interface StopStep {
  /** Text that may be shown now. */
  readonly text: string;
  readonly isStopped: boolean;
}

export class StopRules {
  readonly #stops: readonly string[];
  readonly #longest: number;
  #held = '';
  #isStopped = false;

  constructor(stops: readonly string[]) {
    this.#stops = stops;
    this.#longest = Math.max(0, ...stops.map((stop) => stop.length));
  }

  push(text: string): StopStep {
    if (this.#isStopped) return { text: '', isStopped: true };
    const seen = this.#held + text;
    const cut = this.#firstComplete(seen);
    if (cut !== null) {
      this.#isStopped = true;
      this.#held = '';
      return { text: seen.slice(0, cut), isStopped: true };
    }
    const shown = seen.length - this.#heldLength(seen);
    this.#held = seen.slice(shown);
    return { text: seen.slice(0, shown), isStopped: false };
  }

  /** What was held back, once no more text will come. */
  end(): string {
    const rest = this.#held;
    this.#held = '';
    return rest;
  }

  /** Where the stop string that is complete first begins; of two complete at once, the one that began earlier. */
  #firstComplete(text: string): number | null {
    let bestEnd = Number.POSITIVE_INFINITY;
    let bestStart = Number.POSITIVE_INFINITY;
    for (const stop of this.#stops) {
      const start = text.indexOf(stop);
      if (start < 0) continue;
      const end = start + stop.length;
      if (end < bestEnd || (end === bestEnd && start < bestStart)) {
        bestEnd = end;
        bestStart = start;
      }
    }
    return bestEnd === Number.POSITIVE_INFINITY ? null : bestStart;
  }

  /** Length of the longest end of the text that begins a stop string. */
  #heldLength(text: string): number {
    for (let length = Math.min(this.#longest - 1, text.length); length > 0; length -= 1) {
      const end = text.slice(text.length - length);
      if (this.#stops.some((stop) => stop.length > length && stop.startsWith(end))) return length;
    }
    return 0;
  }
}
