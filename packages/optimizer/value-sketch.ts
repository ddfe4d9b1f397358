/**
 * Quantiles of millions of values in little memory: counts in buckets whose width is 1 % of their value, as DDSketch has
 * them (Masson et al., 2019). Quantiles are within 0.5 % of a value that was there; least, most and mean are exact. Used by
 * the traffic replay's report and by the twin.
 */
const GROWTH = Math.log(1.01);
/** Below it, a duration is 0. */
const LEAST = 1e-3;

export interface Quantiles {
  readonly count: number;
  readonly mean: number;
  readonly min: number;
  readonly p50: number;
  readonly p90: number;
  readonly p95: number;
  readonly p99: number;
  readonly max: number;
}

export class ValueSketch {
  readonly #counts = new Map<number, number>();
  #count = 0;
  #sum = 0;
  #min = Number.POSITIVE_INFINITY;
  #max = Number.NEGATIVE_INFINITY;

  /** @param value at least 0; @param count how often it occurred */
  add(value: number, count = 1): void {
    if (count <= 0) return;
    const bucket = value < LEAST ? Number.NEGATIVE_INFINITY : Math.round(Math.log(value) / GROWTH);
    this.#counts.set(bucket, (this.#counts.get(bucket) ?? 0) + count);
    this.#count += count;
    this.#sum += value * count;
    this.#min = Math.min(this.#min, value);
    this.#max = Math.max(this.#max, value);
  }

  /** Nearest rank; null of nothing. */
  quantiles(): Quantiles | null {
    if (this.#count === 0) return null;
    const buckets = [...this.#counts].sort(([a], [b]) => a - b);
    const at = (share: number): number => {
      let passed = 0;
      for (const [bucket, count] of buckets) {
        passed += count;
        if (passed >= share * this.#count) {
          return Math.min(this.#max, Math.max(this.#min, Math.exp(bucket * GROWTH)));
        }
      }
      return this.#max;
    };
    return {
      count: this.#count,
      mean: this.#sum / this.#count,
      min: this.#min,
      ...{ p50: at(0.5), p90: at(0.9), p95: at(0.95), p99: at(0.99) },
      max: this.#max,
    };
  }
}
