/**
 * Folds what was seen, turn by turn, into the report of a replay: times, throughput, goodput and SLO attainment of the
 * whole and of each tier, faults by kind, and how late the sender itself was. Pure, of bounded size; printed by the command.
 */

import { type Quantiles, ValueSketch } from '@variator/optimizer/value-sketch';
import type { SeenAnswer } from './answer-request.ts';
import type { DriveResult, TurnRecord } from './drive-sessions.ts';

/** null: not asked for. */
export interface ReplayObjectives {
  readonly ttftMs: number | null;
  readonly itlMs: number | null;
  readonly e2eMs: number | null;
}

export interface TierReport {
  readonly requestCount: number;
  readonly okCount: number;
  readonly faultCounts: Readonly<Record<string, number>>;
  /** From the intended time, so that a slow sender or a full window cannot flatter the server. */
  readonly ttftMs: Quantiles | null;
  readonly e2eMs: Quantiles | null;
  /** From the time of sending. */
  readonly ttftFromSendMs: Quantiles | null;
  readonly e2eFromSendMs: Quantiles | null;
  /** All gaps between pieces of answers. */
  readonly itlMs: Quantiles | null;
  /** The mean gap of each request, by tokens. */
  readonly tpotMs: Quantiles | null;
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  /** Of the prompt tokens; null where nothing was counted. */
  readonly cachedShare: number | null;
  readonly completionTokenCount: number;
  readonly requestsPerSecond: number;
  readonly promptTokensPerSecond: number;
  readonly completionTokensPerSecond: number;
  /** Requests answered whole and within all objectives; null where there are none. */
  readonly attainedCount: number | null;
  readonly goodputPerSecond: number | null;
  /** Of all requests, failed ones too. */
  readonly attainment: number | null;
}

export interface TrafficReport {
  readonly durationSeconds: number;
  readonly sessionCount: number;
  readonly unsentTurnCount: number;
  readonly mostInFlightCount: number;
  /** How long after its intended time a request was sent: the client's own delay. */
  readonly latenessMs: Quantiles | null;
  readonly plannedPromptTokenCount: number;
  readonly plannedCompletionTokenCount: number;
  /** An example of each kind of fault. */
  readonly faultExamples: Readonly<Record<string, string>>;
  readonly objectives: ReplayObjectives;
  readonly all: TierReport;
  /** As asked for; `none` asked for none. */
  readonly tiers: Readonly<Record<string, TierReport>>;
}

export class TrafficTally {
  readonly #objectives: ReplayObjectives;
  readonly #all: TierTally;
  readonly #tiers = new Map<string, TierTally>();
  readonly #latenessMs = new ValueSketch();
  readonly #faultExamples = new Map<string, string>();
  #plannedPromptTokenCount = 0;
  #plannedCompletionTokenCount = 0;
  #inFlightCount = 0;
  #mostInFlightCount = 0;

  constructor(objectives: ReplayObjectives) {
    this.#objectives = objectives;
    this.#all = new TierTally(objectives);
  }

  get requestCount(): number {
    return this.#all.requestCount;
  }

  get faultCount(): number {
    return this.#all.requestCount - this.#all.okCount;
  }

  get inFlightCount(): number {
    return this.#inFlightCount;
  }

  sending(): void {
    this.#inFlightCount += 1;
    this.#mostInFlightCount = Math.max(this.#mostInFlightCount, this.#inFlightCount);
  }

  take(record: TurnRecord, plannedPromptTokenCount: number): void {
    this.#inFlightCount -= 1;
    const { seen, turn, session, intendedAt } = record;
    // Ended by the person who stops the replay: neither answered nor failed.
    if (seen.fault === 'stopped') return;
    this.#plannedPromptTokenCount += plannedPromptTokenCount;
    this.#plannedCompletionTokenCount += turn.outputTokenCount;
    this.#latenessMs.add(Math.max(0, seen.sentAt - intendedAt));
    if (seen.fault !== '' && !this.#faultExamples.has(seen.fault)) {
      this.#faultExamples.set(seen.fault, seen.faultDetail);
    }
    const name = session.serviceTier === '' ? 'none' : session.serviceTier;
    const tier = this.#tiers.get(name) ?? new TierTally(this.#objectives);
    this.#tiers.set(name, tier);
    this.#all.take(seen, intendedAt);
    tier.take(seen, intendedAt);
  }

  report(drive: DriveResult): TrafficReport {
    const seconds = Math.max(1e-3, (drive.endedAt - drive.startedAt) / 1000);
    const tiers = [...this.#tiers].sort(([a], [b]) => a.localeCompare(b));
    return {
      durationSeconds: seconds,
      sessionCount: drive.sessionCount,
      unsentTurnCount: drive.unsentTurnCount,
      mostInFlightCount: this.#mostInFlightCount,
      latenessMs: this.#latenessMs.quantiles(),
      plannedPromptTokenCount: this.#plannedPromptTokenCount,
      plannedCompletionTokenCount: this.#plannedCompletionTokenCount,
      faultExamples: Object.fromEntries(this.#faultExamples),
      objectives: this.#objectives,
      all: this.#all.report(seconds),
      tiers: Object.fromEntries(tiers.map(([name, tier]) => [name, tier.report(seconds)])),
    };
  }
}

class TierTally {
  readonly #objectives: ReplayObjectives;
  readonly #faultCounts = new Map<string, number>();
  readonly #ttft = new ValueSketch();
  readonly #ttftFromSend = new ValueSketch();
  readonly #e2e = new ValueSketch();
  readonly #e2eFromSend = new ValueSketch();
  readonly #itl = new ValueSketch();
  readonly #tpot = new ValueSketch();
  requestCount = 0;
  okCount = 0;
  #attainedCount = 0;
  #promptTokenCount = 0;
  #cachedTokenCount = 0;
  #completionTokenCount = 0;

  constructor(objectives: ReplayObjectives) {
    this.#objectives = objectives;
  }

  take(seen: SeenAnswer, intendedAt: number): void {
    this.requestCount += 1;
    if (seen.fault !== '') {
      this.#faultCounts.set(seen.fault, (this.#faultCounts.get(seen.fault) ?? 0) + 1);
      return;
    }
    this.okCount += 1;
    const { usage, firstTokenAt, gapsMs } = seen;
    this.#promptTokenCount += usage?.promptTokenCount ?? 0;
    this.#cachedTokenCount += usage?.cachedTokenCount ?? 0;
    const pieceCount = firstTokenAt === null ? 0 : gapsMs.length + 1;
    // Where the server does not count, each piece is taken for a token.
    const tokenCount = usage?.completionTokenCount ?? pieceCount;
    this.#completionTokenCount += tokenCount;
    this.#e2e.add(seen.endedAt - intendedAt);
    this.#e2eFromSend.add(seen.endedAt - seen.sentAt);
    for (const gap of gapsMs) this.#itl.add(gap);
    if (firstTokenAt !== null) {
      this.#ttft.add(firstTokenAt - intendedAt);
      this.#ttftFromSend.add(firstTokenAt - seen.sentAt);
      const streamedMs = gapsMs.reduce((sum, gap) => sum + gap, 0);
      if (tokenCount > 1 && gapsMs.length > 0) this.#tpot.add(streamedMs / (tokenCount - 1));
    }
    if (isWithin(seen, intendedAt, this.#objectives)) this.#attainedCount += 1;
  }

  report(seconds: number): TierReport {
    const { ttftMs, itlMs, e2eMs } = this.#objectives;
    const hasObjectives = ttftMs !== null || itlMs !== null || e2eMs !== null;
    return {
      requestCount: this.requestCount,
      okCount: this.okCount,
      faultCounts: Object.fromEntries(this.#faultCounts),
      ttftMs: this.#ttft.quantiles(),
      e2eMs: this.#e2e.quantiles(),
      ttftFromSendMs: this.#ttftFromSend.quantiles(),
      e2eFromSendMs: this.#e2eFromSend.quantiles(),
      itlMs: this.#itl.quantiles(),
      tpotMs: this.#tpot.quantiles(),
      promptTokenCount: this.#promptTokenCount,
      cachedTokenCount: this.#cachedTokenCount,
      cachedShare: this.#promptTokenCount > 0 ? this.#cachedTokenCount / this.#promptTokenCount : null,
      completionTokenCount: this.#completionTokenCount,
      requestsPerSecond: this.okCount / seconds,
      promptTokensPerSecond: this.#promptTokenCount / seconds,
      completionTokensPerSecond: this.#completionTokenCount / seconds,
      attainedCount: hasObjectives ? this.#attainedCount : null,
      goodputPerSecond: hasObjectives ? this.#attainedCount / seconds : null,
      attainment: hasObjectives && this.requestCount > 0 ? this.#attainedCount / this.requestCount : null,
    };
  }
}

/** The ITL objective is held where at most one gap in a hundred is longer. */
export function isWithin(seen: SeenAnswer, intendedAt: number, objectives: ReplayObjectives): boolean {
  const { ttftMs, itlMs, e2eMs } = objectives;
  if (seen.fault !== '') return false;
  if (e2eMs !== null && seen.endedAt - intendedAt > e2eMs) return false;
  if (ttftMs !== null && (seen.firstTokenAt ?? seen.endedAt) - intendedAt > ttftMs) return false;
  if (itlMs === null) return true;
  return seen.gapsMs.filter((gap) => gap > itlMs).length <= seen.gapsMs.length / 100;
}
