/**
 * The sequences that wait, in the order in which they will be admitted: by queue rank, then by arrival. Owned by the
 * scheduler. A preempted sequence comes back with its old rank, so it stands in front of whoever came after it.
 */
import type { OpenSequence } from './open-sequence.ts';

export class WaitingQueue {
  readonly #sequences: OpenSequence[] = [];

  get count(): number {
    return this.#sequences.length;
  }

  first(): OpenSequence | null {
    return this.#sequences[0] ?? null;
  }

  /** Behind those of the same rank, except that a preempted one goes in front of them. */
  add(sequence: OpenSequence): void {
    const isInFront = sequence.preemptionCount > 0;
    let low = 0;
    let high = this.#sequences.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const rank = this.#sequences[middle]?.queueRank ?? 0;
      if (rank < sequence.queueRank || (rank === sequence.queueRank && !isInFront)) low = middle + 1;
      else high = middle;
    }
    this.#sequences.splice(low, 0, sequence);
  }

  remove(sequence: OpenSequence): void {
    const index = this.#sequences.indexOf(sequence);
    if (index >= 0) this.#sequences.splice(index, 1);
  }
}
