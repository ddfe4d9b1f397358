/**
 * Steps the real scheduler over recorded arrivals on a virtual clock, with a fitted step-time model in the device's place:
 * what a window would have looked like under another execution path, on one worker of the twin. Called by propose.ts. A client
 * that waited for an answer before it asked again does so here, too (closed-loop.ts); all others come when they came.
 */
import { type Envelope, type ExecutionPath, kvBlockCountOf } from '@variator/kernels/execution-path';
import type { Batch, StepSettlement } from '@variator/scheduler/batch';
import type { Leap } from '@variator/scheduler/scheduler';
import type {
  EndedSequence,
  GuessCounts,
  Objectives,
  SequenceSpec,
  ServiceTier,
} from '@variator/scheduler/sequence';
import type { StepFeatures, StepTimeFit, StepTimeModel } from '@variator/scheduler/step-time';
import { ArrivalQueue } from './arrival-queue.ts';
import { drawnGuesses } from './drawn-guesses.ts';
import { GapCounts } from './gap-counts.ts';
import type { Outcome } from './proposal.ts';
import { quantile } from './quantile.ts';
import { promptsOf, warmingPrompts } from './synthetic-prompts.ts';
import { runTwin, type TwinRequest, type TwinRunObserver } from './twin.ts';
import { TwinWorker } from './twin-worker.ts';

export interface Arrival {
  /** Epoch ms. */
  readonly at: number;
  readonly promptTokenCount: number;
  /** Prompt tokens that came from the prefix cache. */
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
  /** Requests of one session share prompt starts. */
  readonly session: string;
  readonly tenant: string;
  readonly serviceTier: ServiceTier;
  readonly objectives: Objectives;
  /** Gaps are nobody's where the answer came whole. */
  readonly isStreamed: boolean;
  /** From arrival to its end, as recorded. */
  readonly e2eMs: number;
  /** What guesses at its tokens would have been worth; null or absent where that is not known. */
  readonly guesses?: GuessCounts | null;
}

export interface ReplayQuestion {
  readonly arrivals: readonly Arrival[];
  readonly path: ExecutionPath;
  readonly fit: StepTimeFit;
  /** What steps take where that is not what the scheduler knows of them; the fit where it is not said. */
  readonly device?: StepTimeModel;
  readonly envelope: Envelope;
  readonly deviceUsdPerHour: number;
  readonly seed: number;
  /** Spread of a step's log time around the fit; 0 steps exactly by the fit. */
  readonly noise?: number;
  /** What measured steps took, relative to the fit: drawn from for each step, in the noise's place. */
  readonly stepFactors?: readonly number[];
  /** Between two steps: composing, settling, sending. */
  readonly betweenStepsMs?: number;
  /** Virtual time after the last arrival in which what is open may finish. */
  readonly drainMs?: number;
}

export interface ReplayedRequest {
  readonly arrival: Arrival;
  readonly ttftMs: number;
  /** Gap to each token after the first, in order. */
  readonly gapsMs: readonly number[];
  readonly cachedTokenCount: number;
  readonly preemptionCount: number;
  readonly isFinished: boolean;
}

export interface Replay {
  readonly outcome: Outcome;
  /** In order of arrival. */
  readonly requests: readonly ReplayedRequest[];
  readonly deviceMs: number;
  readonly stepCount: number;
  /** Features of every step, for prices and for people. */
  readonly steps: readonly StepFeatures[];
  readonly unfinishedCount: number;
  /** Share of streamed gaps that are longer than their own request's objective, 0..1. */
  readonly lateGapShare: number;
}

const BETWEEN_STEPS_MS = 0.3;
const LEAST_DRAIN_MS = 30_000;
/** A bound on work, far above what a window of minutes takes. */
const MOST_STEPS = 200_000;

interface OpenRequest {
  readonly arrival: Arrival;
  readonly gapsMs: number[];
  /** On the virtual clock; null before. */
  arrivedAt: number | null;
  firstTokenAt: number | null;
  lastTokenAt: number;
  cachedTokenCount: number;
  preemptionCount: number;
  isFinished: boolean;
}

export function replay(question: ReplayQuestion): Replay {
  const { path, fit, envelope } = question;
  const arrivals = question.arrivals
    .filter((arrival) => arrival.promptTokenCount > 0 && arrival.completionTokenCount > 0)
    .sort((a, b) => a.at - b.at);
  const startedAt = arrivals[0]?.at ?? 0;
  const worker = new TwinWorker({
    envelope,
    path,
    fit,
    seed: question.seed,
    noise: question.noise ?? 0,
    betweenStepsMs: question.betweenStepsMs ?? BETWEEN_STEPS_MS,
    ...(question.device === undefined ? {} : { device: question.device }),
    ...(question.stepFactors === undefined ? {} : { stepFactors: question.stepFactors }),
    ...(arrivals.some(({ guesses }) => guesses)
      ? { draftSourceOf: drawnGuesses((id) => arrivals[Number(id)]?.guesses ?? null, question.seed) }
      : {}),
  });
  warmCache(worker, arrivals, envelope, startedAt);
  const prompts = promptsOf(arrivals);
  const queue = new ArrivalQueue(arrivals);
  const record = new WindowRecord(arrivals, startedAt);
  const lastArrivalAt = arrivals.at(-1)?.at ?? startedAt;
  const drainMs = question.drainMs ?? Math.max(LEAST_DRAIN_MS, 0.5 * (lastArrivalAt - startedAt));
  const now = runTwin({
    workers: [worker],
    source: {
      isClosedLoop: true,
      nextAt: () => queue.nextAt(),
      take() {
        const due = queue.take();
        const arrival = due === null ? undefined : arrivals[due.index];
        if (due === null || arrival === undefined) return null;
        return { at: due.at, spec: specOf(arrival, due.index, prompts(due.index)) };
      },
      ended: (sequenceId, at) => queue.ended(Number(sequenceId), at),
    },
    observer: record,
    untilMs: lastArrivalAt + drainMs,
    mostSteps: MOST_STEPS,
  });
  const requests = record.replayed(now);
  return {
    outcome: outcomeOf(requests, record, worker.deviceMs, question.deviceUsdPerHour),
    requests,
    deviceMs: worker.deviceMs,
    stepCount: worker.stepCount,
    steps: record.steps,
    unfinishedCount: requests.filter((request) => !request.isFinished).length,
    lateGapShare: record.lateGapCount / Math.max(1, record.gaps.total),
  };
}

/** Every request of a window, token by token. */
class WindowRecord implements TwinRunObserver {
  readonly steps: StepFeatures[] = [];
  /** Of streamed requests. */
  readonly gaps = new GapCounts();
  lateGapCount = 0;
  finishedAt: number;
  readonly #requests: OpenRequest[];

  constructor(arrivals: readonly Arrival[], startedAt: number) {
    this.finishedAt = startedAt;
    this.#requests = arrivals.map((arrival) => ({
      arrival,
      gapsMs: [],
      arrivedAt: null,
      firstTokenAt: null,
      lastTokenAt: 0,
      cachedTokenCount: 0,
      preemptionCount: 0,
      isFinished: false,
    }));
  }

  arrived({ at, spec }: TwinRequest): void {
    const request = this.#requests[Number(spec.sequenceId)];
    if (request !== undefined) request.arrivedAt = at;
  }

  stepped({ features }: Batch, { events }: StepSettlement, _: number, settledAt: number): void {
    this.steps.push(features);
    for (const { sequenceId } of events) {
      const request = this.#requests[Number(sequenceId)];
      if (request === undefined) continue;
      if (request.firstTokenAt === null) request.firstTokenAt = settledAt;
      else this.#note(request, settledAt - request.lastTokenAt);
      request.lastTokenAt = settledAt;
    }
  }

  leaped({ features, settledAt, sequenceIds }: Leap): void {
    for (const step of features) this.steps.push(step);
    const settledFirst = settledAt[0] ?? 0;
    const settledLast = settledAt.at(-1) ?? 0;
    const gapsMs = settledAt.slice(1).map((at, index) => at - (settledAt[index] ?? 0));
    let streamedCount = 0;
    let lateFor = Number.NaN;
    let lateCount = 0;
    for (const sequenceId of sequenceIds) {
      const request = this.#requests[Number(sequenceId)];
      if (request === undefined) continue;
      this.#note(request, settledFirst - request.lastTokenAt);
      for (const gapMs of gapsMs) request.gapsMs.push(gapMs);
      request.lastTokenAt = settledLast;
      if (!request.arrival.isStreamed) continue;
      streamedCount += 1;
      const { itlMs } = request.arrival.objectives;
      if (itlMs !== lateFor) {
        lateFor = itlMs;
        lateCount = gapsMs.reduce((count, gapMs) => (gapMs > itlMs ? count + 1 : count), 0);
      }
      this.lateGapCount += lateCount;
    }
    for (const gapMs of gapsMs) this.gaps.add(gapMs, streamedCount);
  }

  ended(ended: EndedSequence, now: number): void {
    const request = this.#requests[Number(ended.sequenceId)];
    if (request === undefined) return;
    // A prompt that this envelope refuses was refused when it was recorded, too: it is done.
    request.isFinished = true;
    request.cachedTokenCount = ended.cachedTokenCount;
    request.preemptionCount = ended.preemptionCount;
    this.finishedAt = Math.max(this.finishedAt, now);
  }

  replayed(now: number): ReplayedRequest[] {
    return this.#requests.map((request) => {
      // What never got a token has waited until now, at least.
      const arrivedAt = request.arrivedAt ?? request.arrival.at;
      const firstTokenAt = request.firstTokenAt ?? Math.max(now, arrivedAt);
      return { ...request, ttftMs: firstTokenAt - arrivedAt };
    });
  }

  #note(request: OpenRequest, gapMs: number): void {
    request.gapsMs.push(gapMs);
    if (!request.arrival.isStreamed) return;
    this.gaps.add(gapMs, 1);
    if (gapMs > request.arrival.objectives.itlMs) this.lateGapCount += 1;
  }
}

function specOf(arrival: Arrival, index: number, promptTokenIds: readonly number[]): SequenceSpec {
  return {
    sequenceId: String(index),
    promptTokenIds,
    generatedTokenIds: [],
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
    maxTokens: arrival.completionTokenCount,
    stopTokenIds: [],
    tenant: arrival.tenant,
    program: '',
    serviceTier: arrival.serviceTier,
    objectives: arrival.objectives,
    ageLimits: null,
    cacheSalt: '',
  };
}

/** Brings into the cache what the window's first requests found there; costs nothing, since it happened before. */
function warmCache(
  worker: TwinWorker,
  arrivals: readonly Arrival[],
  envelope: Envelope,
  startedAt: number,
): void {
  const [arrival] = arrivals;
  if (arrival === undefined) return;
  const prompts = warmingPrompts(
    arrivals,
    kvBlockCountOf(envelope, worker.options.path) * envelope.kvBlockSize,
  );
  const who = {
    ...arrival,
    tenant: '',
    serviceTier: 'default',
    objectives: { ttftMs: 0, itlMs: 0 },
  } as const;
  worker.warm(
    prompts.map((prompt, index) => ({
      ...specOf({ ...who, completionTokenCount: 1 }, index, prompt),
      sequenceId: `warm-${index}`,
    })),
    startedAt,
  );
}

function outcomeOf(
  requests: readonly ReplayedRequest[],
  { gaps, finishedAt }: WindowRecord,
  deviceMs: number,
  deviceUsdPerHour: number,
): Outcome {
  const finished = requests.filter((request) => request.isFinished);
  const completionTokens = finished.reduce((sum, { arrival }) => sum + arrival.completionTokenCount, 0);
  const promptTokens = finished.reduce((sum, { arrival }) => sum + arrival.promptTokenCount, 0);
  const ttfts = requests.map((request) => request.ttftMs);
  const [itlP50Ms = 0, itlP99Ms = 0] = gaps.quantiles([0.5, 0.99]);
  const spanMs = finishedAt - (requests[0]?.arrival.at ?? finishedAt);
  return {
    deviceMsPerRequest: deviceMs / Math.max(1, finished.length),
    tokensPerSecond: completionTokens / Math.max(0.001, spanMs / 1000),
    ttftP50Ms: quantile(ttfts, 0.5) || 0,
    ttftP95Ms: quantile(ttfts, 0.95) || 0,
    itlP50Ms: itlP50Ms || 0,
    itlP99Ms: itlP99Ms || 0,
    costUsdPerMillionTokens:
      ((deviceMs / 3.6e6) * deviceUsdPerHour * 1e6) / Math.max(1, promptTokens + completionTokens),
  };
}
