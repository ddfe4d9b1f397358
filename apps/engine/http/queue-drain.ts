/**
 * How fast the queue empties: departures by the time in which anything waited, both fading, so that neither a quiet night
 * nor an old rush counts. Owned by admission.ts, which tells it of every change. Pure: time arrives as an argument.
 */

/** After so long of waiting an observation weighs a third. */
const MEMORY_MS = 20_000;
/** Less than this says nothing. */
const LEAST_EVIDENCE_MS = 500;

export class QueueDrain {
  #busyMs = 0;
  #departures = 0;
  #departedTokens = 0;
  #isBusy = false;
  #seenAt = 0;

  /** From `now` on something waits, or nothing does. */
  waits(isBusy: boolean, now: number): void {
    this.#advance(now);
    this.#isBusy = isBusy;
  }

  departed(promptTokenCount: number, now: number): void {
    this.#advance(now);
    this.#departures += 1;
    this.#departedTokens += promptTokenCount;
  }

  /** How long until so much has left the queue; null while too little was seen to say. */
  predictMs(requestCount: number, promptTokenCount: number, now: number): number | null {
    this.#advance(now);
    if (this.#busyMs < LEAST_EVIDENCE_MS || this.#departures < 1) return null;
    const byRequests = (requestCount * this.#busyMs) / this.#departures;
    const byTokens = (promptTokenCount * this.#busyMs) / Math.max(1, this.#departedTokens);
    return Math.max(byRequests, byTokens);
  }

  #advance(now: number): void {
    const elapsedMs = Math.max(0, now - this.#seenAt);
    this.#seenAt = now;
    if (!this.#isBusy || elapsedMs === 0) return;
    const kept = Math.exp(-elapsedMs / MEMORY_MS);
    this.#busyMs = this.#busyMs * kept + MEMORY_MS * (1 - kept);
    this.#departures *= kept;
    this.#departedTokens *= kept;
  }
}
