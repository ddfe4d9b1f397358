/**
 * Device time that each program has had of late, and how much later its next sequence counts as submitted for it: programs
 * that have had little go before those that have had much (PLAS, arXiv 2502.13965, in charged device ms). Owned by the
 * scheduler. What was long ago is forgotten by half-life; bounded: whoever has been away longest goes first.
 */
import type { OpenSequence } from './open-sequence.ts';
import type { SequenceSpec, ServiceTier } from './sequence.ts';

interface Counter {
  attainedMs: number;
  /** When it was last brought up to date. */
  at: number;
}

const MOST_PROGRAMS = 4096;
const HALF_LIFE_MS = 600_000;
/** Attained service of the first level; each level has twice the width of the one before. */
const LEVEL_MS = 2000;
/** It steps back by so much of what it has had: promotion by age, as a rank that is fixed from the start. */
const WAIT_PER_ATTAINED = 0.5;
/** Less than lies between its tier and the next: programs rank within a tier. */
const mostHandicapMs: Readonly<Record<ServiceTier, number>> = {
  priority: 2000,
  default: 42_000,
  flex: 42_000,
};

export class ProgramService {
  /** The longest untouched first. */
  readonly #counters = new Map<string, Counter>();

  attainedMs(spec: SequenceSpec, now: number): number {
    const counter = this.#counters.get(keyOf(spec));
    return counter === undefined ? 0 : counter.attainedMs * this.keptShare(now - counter.at);
  }

  /**
   * 0 for a program that has had less than one level, and for sequences of none. At most what such sequences usually wait:
   * so nobody waits longer for it than one usual wait, and where hardly anybody waits, hardly anything is put off.
   */
  handicapMs(spec: SequenceSpec, usualWaitMs: number, now: number): number {
    const level = Math.floor(Math.log2(1 + this.attainedMs(spec, now) / LEVEL_MS));
    const wantedMs = WAIT_PER_ATTAINED * LEVEL_MS * (2 ** level - 1);
    return Math.min(wantedMs, usualWaitMs, mostHandicapMs[spec.serviceTier]);
  }

  /** What is left after `ageMs` of a service attained. */
  keptShare(ageMs: number): number {
    return 2 ** (-Math.max(0, ageMs) / HALF_LIFE_MS);
  }

  charged({ spec }: OpenSequence, deviceMs: number, now: number): void {
    if (spec.program === '') return;
    const key = keyOf(spec);
    const attainedMs = this.attainedMs(spec, now) + deviceMs;
    this.#counters.delete(key);
    this.#counters.set(key, { attainedMs, at: now });
    if (this.#counters.size <= MOST_PROGRAMS) return;
    const [oldest] = this.#counters.keys();
    if (oldest !== undefined) this.#counters.delete(oldest);
  }
}

const keyOf = ({ tenant, program }: SequenceSpec): string => `${tenant} ${program}`;
