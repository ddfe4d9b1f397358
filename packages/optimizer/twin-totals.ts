/**
 * What a twin's run came to, in memory that does not grow with it: counts, and quantiles within 0.5 % (value-sketch.ts).
 * Only open requests are kept one by one. Whoever wants more of a request takes it when it ends.
 */
import type { Batch, StepSettlement } from '@variator/scheduler/batch';
import type { Leap } from '@variator/scheduler/scheduler';
import type { EndedSequence, SequenceSpec } from '@variator/scheduler/sequence';
import type { TwinRequest, TwinRunObserver } from './twin.ts';
import { ValueSketch } from './value-sketch.ts';

export interface TwinOutcome {
  readonly spec: SequenceSpec;
  readonly workerIndex: number;
  readonly arrivedAt: number;
  /** Infinite where no token came. */
  readonly ttftMs: number;
  /** Mean gap of its tokens; 0 where there was but one. */
  readonly tpotMs: number;
  readonly endedAt: number;
  readonly ended: EndedSequence;
}

interface Open {
  readonly spec: SequenceSpec;
  readonly workerIndex: number;
  readonly arrivedAt: number;
  firstTokenAt: number;
  lastTokenAt: number;
}

export class TwinTotals implements TwinRunObserver {
  readonly ttftMs = new ValueSketch();
  readonly tpotMs = new ValueSketch();
  readonly itlMs = new ValueSketch();
  requestCount = 0;
  /** Those that got all of their tokens. */
  finishedCount = 0;
  promptTokenCount = 0;
  cachedTokenCount = 0;
  completionTokenCount = 0;
  preemptionCount = 0;
  firstAt = Number.POSITIVE_INFINITY;
  lastEndedAt = Number.NEGATIVE_INFINITY;
  readonly #open = new Map<string, Open>();
  readonly #onEnded: (outcome: TwinOutcome) => void;

  constructor(onEnded: (outcome: TwinOutcome) => void = () => {}) {
    this.#onEnded = onEnded;
  }

  get openCount(): number {
    return this.#open.size;
  }

  /** Open requests, arrived since `sinceMs`, whose first token is later than its objective. */
  lateOpenCount(now: number, sinceMs: number): number {
    let count = 0;
    for (const { spec, arrivedAt, firstTokenAt } of this.#open.values()) {
      if (arrivedAt < sinceMs || spec.objectives.ttftMs === 0) continue;
      if (Math.min(firstTokenAt, now) - arrivedAt > spec.objectives.ttftMs) count += 1;
    }
    return count;
  }

  arrived({ at, spec }: TwinRequest, workerIndex: number): void {
    this.firstAt = Math.min(this.firstAt, at);
    this.requestCount += 1;
    const open = {
      spec,
      workerIndex,
      arrivedAt: at,
      firstTokenAt: Number.POSITIVE_INFINITY,
      lastTokenAt: 0,
    };
    this.#open.set(spec.sequenceId, open);
  }

  stepped(_: Batch, { events }: StepSettlement, _deviceMs: number, settledAt: number): void {
    let gapMs = 0;
    let gapCount = 0;
    for (const { sequenceId, index } of events) {
      const request = this.#open.get(sequenceId);
      if (request === undefined) continue;
      if (index === 0) {
        request.firstTokenAt = settledAt;
        this.ttftMs.add(settledAt - request.arrivedAt);
      } else {
        const ownMs = settledAt - request.lastTokenAt;
        if (ownMs !== gapMs) {
          this.itlMs.add(gapMs, gapCount);
          gapMs = ownMs;
          gapCount = 0;
        }
        gapCount += 1;
      }
      request.lastTokenAt = settledAt;
    }
    this.itlMs.add(gapMs, gapCount);
  }

  leaped({ sequenceIds, lastTokenAt, settledAt }: Leap): void {
    const settledFirst = settledAt[0] ?? 0;
    const settledLast = settledAt.at(-1) ?? 0;
    let gapMs = 0;
    let gapCount = 0;
    for (let place = 0; place < sequenceIds.length; place += 1) {
      const ownMs = settledFirst - (lastTokenAt[place] ?? 0);
      if (ownMs !== gapMs) {
        this.itlMs.add(gapMs, gapCount);
        gapMs = ownMs;
        gapCount = 0;
      }
      gapCount += 1;
      const request = this.#open.get(sequenceIds[place] ?? '');
      if (request !== undefined) request.lastTokenAt = settledLast;
    }
    this.itlMs.add(gapMs, gapCount);
    for (let step = 1; step < settledAt.length; step += 1) {
      this.itlMs.add((settledAt[step] ?? 0) - (settledAt[step - 1] ?? 0), sequenceIds.length);
    }
  }

  ended(ended: EndedSequence, now: number): void {
    const request = this.#open.get(ended.sequenceId);
    if (request === undefined) return;
    this.#open.delete(ended.sequenceId);
    this.lastEndedAt = Math.max(this.lastEndedAt, now);
    this.promptTokenCount += ended.promptTokenCount;
    this.cachedTokenCount += ended.cachedTokenCount;
    this.completionTokenCount += ended.completionTokenCount;
    this.preemptionCount += ended.preemptionCount;
    if (ended.reason === 'length') this.finishedCount += 1;
    const gapCount = ended.completionTokenCount - 1;
    const tpotMs = gapCount > 0 ? (request.lastTokenAt - request.firstTokenAt) / gapCount : 0;
    if (gapCount > 0) this.tpotMs.add(tpotMs);
    const { spec, workerIndex, arrivedAt, firstTokenAt } = request;
    this.#onEnded({
      spec,
      workerIndex,
      arrivedAt,
      ttftMs: firstTokenAt - arrivedAt,
      tpotMs,
      endedAt: now,
      ended,
    });
  }
}
