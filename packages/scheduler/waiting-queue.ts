/**
 * The sequences that wait, a lane for each tier and tenant, in each lane by queue rank and then by arrival. Owned by the
 * scheduler; who goes next is decided in next-admission.ts. A preempted sequence comes back with its old rank, in front
 * of whoever has the same.
 */
import type { OpenSequence } from './open-sequence.ts';
import type { ServiceTier } from './sequence.ts';

export interface Lane {
  readonly serviceTier: ServiceTier;
  readonly tenant: string;
  /** Never empty while the lane is in the queue. */
  readonly sequences: OpenSequence[];
}

export class WaitingQueue {
  readonly #lanes = new Map<string, Lane>();
  #count = 0;
  #tokenCount = 0;

  get count(): number {
    return this.#count;
  }

  /** Their known tokens, those that a cached prefix may spare included. */
  get tokenCount(): number {
    return this.#tokenCount;
  }

  lanes(): Iterable<Lane> {
    return this.#lanes.values();
  }

  /** The smallest rank of all lanes; of equal ranks the one that came back, then the earlier one. */
  first(): OpenSequence | null {
    let first: OpenSequence | null = null;
    for (const { sequences } of this.#lanes.values()) {
      const head = sequences[0];
      if (head !== undefined && (first === null || isBefore(head, first))) first = head;
    }
    return first;
  }

  add(sequence: OpenSequence): void {
    const { serviceTier, tenant } = sequence.spec;
    const key = sequence.tenantKey;
    const lane = this.#lanes.get(key) ?? { serviceTier, tenant, sequences: [] };
    this.#lanes.set(key, lane);
    let low = 0;
    let high = lane.sequences.length;
    while (low < high) {
      const middle = (low + high) >>> 1;
      const other = lane.sequences[middle];
      if (other !== undefined && !isBefore(sequence, other)) low = middle + 1;
      else high = middle;
    }
    lane.sequences.splice(low, 0, sequence);
    this.#count += 1;
    // None is added while it waits.
    this.#tokenCount += sequence.tokenIds.length;
  }

  remove(sequence: OpenSequence): void {
    const key = sequence.tenantKey;
    const lane = this.#lanes.get(key);
    const index = lane?.sequences.indexOf(sequence) ?? -1;
    if (lane === undefined || index < 0) return;
    lane.sequences.splice(index, 1);
    this.#count -= 1;
    this.#tokenCount -= sequence.tokenIds.length;
    if (lane.sequences.length === 0) this.#lanes.delete(key);
  }
}

function isBefore(a: OpenSequence, b: OpenSequence): boolean {
  if (a.queueRank !== b.queueRank) return a.queueRank < b.queueRank;
  const aWasOut = a.preemptionCount > 0;
  return aWasOut === b.preemptionCount > 0 ? a.submissionOrder < b.submissionOrder : aWasOut;
}
