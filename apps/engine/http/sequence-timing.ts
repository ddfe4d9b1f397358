/**
 * When the tokens of one request arrived: TTFT, mean and p95 gap, longest gap. Pure; times arrive as arguments. Gaps are
 * kept exactly up to MAX_GAP_COUNT, then as a uniform sample of that size.
 */
const MAX_GAP_COUNT = 4096;

export interface TimingSummary {
  readonly ttftMs: number;
  /** First to last token. */
  readonly decodeMs: number;
  readonly tpotMs: number;
  readonly itlP95Ms: number;
  readonly itlMaxMs: number;
}

export class SequenceTiming {
  readonly #arrivedAt: number;
  readonly #gapsMs: number[] = [];
  #tokenCount = 0;
  #firstAt = 0;
  #lastAt = 0;
  #longestGapMs = 0;
  #randomState = 0x9e3779b9;

  constructor(arrivedAt: number) {
    this.#arrivedAt = arrivedAt;
  }

  /** The gap before this token; null at the first. */
  token(at: number): number | null {
    this.#tokenCount += 1;
    const gapMs = this.#tokenCount === 1 ? null : Math.max(0, at - this.#lastAt);
    if (gapMs === null) this.#firstAt = at;
    else this.#keep(gapMs);
    this.#lastAt = at;
    return gapMs;
  }

  /** All 0 where there was too little to measure. */
  summary(): TimingSummary {
    const gapCount = this.#tokenCount - 1;
    const ordered = [...this.#gapsMs].sort((a, b) => a - b);
    return {
      ttftMs: this.#tokenCount === 0 ? 0 : Math.max(0, this.#firstAt - this.#arrivedAt),
      decodeMs: Math.max(0, this.#lastAt - this.#firstAt),
      tpotMs: gapCount < 1 ? 0 : Math.max(0, this.#lastAt - this.#firstAt) / gapCount,
      itlP95Ms: ordered[Math.ceil(ordered.length * 0.95) - 1] ?? 0,
      itlMaxMs: this.#longestGapMs,
    };
  }

  #keep(gapMs: number): void {
    this.#longestGapMs = Math.max(this.#longestGapMs, gapMs);
    if (this.#gapsMs.length < MAX_GAP_COUNT) {
      this.#gapsMs.push(gapMs);
      return;
    }
    this.#randomState = (Math.imul(this.#randomState, 1664525) + 1013904223) >>> 0;
    const slot = Math.floor((this.#randomState / 2 ** 32) * (this.#tokenCount - 1));
    if (slot < MAX_GAP_COUNT) this.#gapsMs[slot] = gapMs;
  }
}
