/**
 * Device time that each tenant has had, a counter for each tier: what fairness among tenants goes by (virtual token
 * counters, arXiv 2401.00588, in charged device ms). Owned by the scheduler. Bounded: whoever has been away longest is
 * forgotten first. A tenant that comes back is lifted to the least served of those present, so that idling saves nothing
 * up and nobody is held back for what was long ago.
 */
import { type OpenSequence, tenantKey } from './open-sequence.ts';
import type { SequenceSpec, ServiceTier } from './sequence.ts';
import { prefillWorkMs, type StepTimeFit } from './step-time.ts';

interface Counter {
  readonly serviceTier: ServiceTier;
  attainedMs: number;
  openCount: number;
  /** Of its sequences of late, what they were charged for prompt and answer; null before any has ended. */
  meanPrefillMs: number | null;
  meanDecodeMs: number | null;
  /** Of late, until their first tokens; null before any. */
  meanWaitMs: number | null;
}

const MOST_COUNTERS = 1024;
/** Weight of the newest sequence in the means. */
const MEAN_WEIGHT = 0.1;

export class TenantService {
  /** The longest untouched first. */
  readonly #counters = new Map<string, Counter>();
  #meanPrefillMs = 0.5;
  #meanDecodeMs = 0.5;

  /**
   * Device ms that a running sequence is expected to cost still: its prompt by the fit where there is one, its answer by
   * what those of its tenant, or of all, have cost of late.
   */
  expectedMs(sequence: OpenSequence, fit: StepTimeFit | null): number {
    const { account, tokenIds, cachedTokenCount } = sequence;
    const counter = this.#counters.get(sequence.tenantKey);
    const prefillMs =
      fit === null
        ? (counter?.meanPrefillMs ?? this.#meanPrefillMs)
        : prefillWorkMs(fit, cachedTokenCount, tokenIds.length - cachedTokenCount);
    const decodeMs = counter?.meanDecodeMs ?? this.#meanDecodeMs;
    return (
      Math.max(0, prefillMs - account.prefillDeviceMs) +
      Math.max(0, decodeMs - account.decodeDeviceMs - account.speculationWasteDeviceMs)
    );
  }

  attainedMs(serviceTier: ServiceTier, tenant: string): number {
    return this.#counters.get(tenantKey(serviceTier, tenant))?.attainedMs ?? 0;
  }

  opened({ spec: { serviceTier }, tenantKey: key }: OpenSequence): void {
    const counter = this.#counters.get(key) ?? {
      serviceTier,
      attainedMs: 0,
      openCount: 0,
      meanPrefillMs: null,
      meanDecodeMs: null,
      meanWaitMs: null,
    };
    if (counter.openCount === 0) {
      counter.attainedMs = Math.max(counter.attainedMs, this.#leastPresentMs(serviceTier));
    }
    counter.openCount += 1;
    this.#touch(key, counter);
    this.#forgetAbsent();
  }

  /** What its tenant's sequences in its tier have waited for their first tokens of late; 0 before any had one. */
  usualWaitMs({ serviceTier, tenant }: SequenceSpec): number {
    return this.#counters.get(tenantKey(serviceTier, tenant))?.meanWaitMs ?? 0;
  }

  /** It has its first token. */
  hasWaited({ tenantKey: key, submittedAt }: OpenSequence, now: number): void {
    const counter = this.#counters.get(key);
    if (counter === undefined) return;
    const waitMs = now - submittedAt;
    counter.meanWaitMs = moved(counter.meanWaitMs ?? waitMs, waitMs);
  }

  charged({ tenantKey: key }: OpenSequence, deviceMs: number): void {
    const counter = this.#counters.get(key);
    if (counter !== undefined) counter.attainedMs += deviceMs;
  }

  ended({ tenantKey: key, account }: OpenSequence): void {
    const counter = this.#counters.get(key);
    if (counter === undefined) return;
    counter.openCount -= 1;
    this.#touch(key, counter);
    const prefillMs = account.prefillDeviceMs + account.recomputeDeviceMs;
    const decodeMs = account.decodeDeviceMs + account.speculationWasteDeviceMs;
    if (prefillMs + decodeMs === 0) return;
    counter.meanPrefillMs = moved(counter.meanPrefillMs ?? prefillMs, prefillMs);
    counter.meanDecodeMs = moved(counter.meanDecodeMs ?? decodeMs, decodeMs);
    this.#meanPrefillMs = moved(this.#meanPrefillMs, prefillMs);
    this.#meanDecodeMs = moved(this.#meanDecodeMs, decodeMs);
  }

  #leastPresentMs(serviceTier: ServiceTier): number {
    let least = Number.POSITIVE_INFINITY;
    for (const counter of this.#counters.values()) {
      if (counter.serviceTier === serviceTier && counter.openCount > 0) {
        least = Math.min(least, counter.attainedMs);
      }
    }
    return Number.isFinite(least) ? least : 0;
  }

  #touch(key: string, counter: Counter): void {
    this.#counters.delete(key);
    this.#counters.set(key, counter);
  }

  #forgetAbsent(): void {
    if (this.#counters.size <= MOST_COUNTERS) return;
    for (const [key, { openCount }] of this.#counters) {
      if (openCount > 0) continue;
      this.#counters.delete(key);
      return;
    }
  }
}

const moved = (mean: number, newest: number): number => mean + MEAN_WEIGHT * (newest - mean);
