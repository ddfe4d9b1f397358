/**
 * Gaps between tokens, each with how often it occurred: sequences of one step share their gap, so a window's gaps are few.
 * Exact. Used by replay.ts; for runs without end there is quantile-sketch.ts.
 */
export class GapCounts {
  readonly #values: number[] = [];
  readonly #counts: number[] = [];
  #total = 0;

  add(value: number, count: number): void {
    if (count <= 0) return;
    const last = this.#values.length - 1;
    this.#total += count;
    if (last >= 0 && this.#values[last] === value) {
      this.#counts[last] = (this.#counts[last] ?? 0) + count;
      return;
    }
    this.#values.push(value);
    this.#counts.push(count);
  }

  get total(): number {
    return this.#total;
  }

  /** As `quantile` of the list in which each gap stands as often as it occurred; NaN of none. */
  quantiles(shares: readonly number[]): number[] {
    const order = Float64Array.from(this.#values, (_, index) => index).sort(
      (a, b) => (this.#values[a] ?? 0) - (this.#values[b] ?? 0),
    );
    return shares.map((share) => {
      if (this.#total === 0) return Number.NaN;
      const place = Math.min(1, Math.max(0, share)) * (this.#total - 1);
      const below = Math.floor(place);
      let reached = 0;
      let lower: number | null = null;
      for (const index of order) {
        reached += this.#counts[index] ?? 0;
        const value = this.#values[index] ?? 0;
        if (lower === null && reached > below) lower = value;
        if (lower !== null && reached > Math.ceil(place)) return lower + (value - lower) * (place - below);
      }
      return lower ?? Number.NaN;
    });
  }
}
