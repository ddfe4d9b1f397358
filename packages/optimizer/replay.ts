/**
 * Steps the real scheduler over recorded arrivals on a virtual clock, with a fitted step-time model in the device's place:
 * what a window would have looked like under another execution path. The seed of the twin. Called by propose.ts. A client
 * that waited for an answer before it asked again does so here, too (closed-loop.ts); all others come when they came.
 */
import { type Envelope, type ExecutionPath, numericsId } from '@variator/kernels/execution-path';
import { Scheduler } from '@variator/scheduler/scheduler';
import type { Objectives, SequenceSpec, ServiceTier } from '@variator/scheduler/sequence';
import { predictMs, type StepFeatures, type StepTimeFit } from '@variator/scheduler/step-time';
import { ArrivalQueue } from './arrival-queue.ts';
import type { Outcome } from './proposal.ts';
import { quantile } from './quantile.ts';
import { seededRandom } from './seeded-random.ts';
import { promptsOf, warmingPrompts } from './synthetic-prompts.ts';

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
}

export interface ReplayQuestion {
  readonly arrivals: readonly Arrival[];
  readonly path: ExecutionPath;
  readonly fit: StepTimeFit;
  readonly envelope: Envelope;
  readonly deviceUsdPerHour: number;
  readonly seed: number;
  /** Spread of a step's log time around the fit; 0 steps exactly by the fit. */
  readonly noise?: number;
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
  const scheduler = new Scheduler({
    blockCount: envelope.kvBlockCount,
    blockSize: envelope.kvBlockSize,
    maxModelLenTokens: envelope.maxModelLenTokens,
    limits: { tokenBudget: path.tokenBudget, maxRunningCount: path.maxRunningCount },
    numericsId: numericsId(path),
  });
  scheduler.setFit(fit);
  const startedAt = arrivals[0]?.at ?? 0;
  warmCache(scheduler, arrivals, envelope, startedAt);

  const prompts = promptsOf(arrivals);
  const requests = arrivals.map(
    (arrival): OpenRequest => ({
      arrival,
      gapsMs: [],
      arrivedAt: null,
      firstTokenAt: null,
      lastTokenAt: 0,
      cachedTokenCount: 0,
      preemptionCount: 0,
      isFinished: false,
    }),
  );
  const random = seededRandom(question.seed);
  const noise = question.noise ?? 0;
  const betweenMs = question.betweenStepsMs ?? BETWEEN_STEPS_MS;
  const lastArrivalAt = arrivals.at(-1)?.at ?? startedAt;
  const deadline =
    lastArrivalAt + (question.drainMs ?? Math.max(LEAST_DRAIN_MS, 0.5 * (lastArrivalAt - startedAt)));
  const steps: StepFeatures[] = [];
  let deviceMs = 0;
  let finishedAt = startedAt;
  let now = startedAt;
  const queue = new ArrivalQueue(arrivals);

  while (now <= deadline && steps.length < MOST_STEPS) {
    for (let due = queue.take(now); due !== null; due = queue.take(now)) {
      const request = requests[due.index];
      if (request === undefined) continue;
      request.arrivedAt = due.at;
      const spec = specOf(request.arrival, due.index, prompts[due.index] ?? []);
      // A prompt that this envelope refuses was refused when it was recorded, too: it is done.
      if (scheduler.submit(spec, due.at) !== null) {
        request.isFinished = true;
        queue.ended(due.index, due.at);
      }
    }
    const batch = scheduler.schedule(now);
    if (batch === null) {
      const nextAt = queue.nextAt();
      if (nextAt === null) break;
      now = Math.max(now, nextAt);
      continue;
    }
    const stepMs = predictMs(fit, batch.features) * (noise > 0 ? Math.exp(noise * random.normal()) : 1);
    now += stepMs;
    deviceMs += stepMs;
    steps.push(batch.features);
    const sampledTokenIds = batch.entries.map((entry) => (entry.isSampled ? GENERATED_TOKEN_ID : -1));
    const settled = scheduler.settle({ stepId: batch.stepId, sampledTokenIds, deviceMs: stepMs }, now);
    for (const event of settled.events) noteToken(requests[Number(event.sequenceId)], now);
    for (const ended of settled.ended) {
      const request = requests[Number(ended.sequenceId)];
      if (request === undefined) continue;
      request.isFinished = true;
      request.cachedTokenCount = ended.cachedTokenCount;
      request.preemptionCount = ended.preemptionCount;
      queue.ended(Number(ended.sequenceId), now);
      finishedAt = now;
    }
    now += betweenMs;
  }

  const replayed = requests.map((request): ReplayedRequest => {
    // What never got a token has waited until now, at least.
    const arrivedAt = request.arrivedAt ?? request.arrival.at;
    const firstTokenAt = request.firstTokenAt ?? Math.max(now, arrivedAt);
    return { ...request, ttftMs: firstTokenAt - arrivedAt };
  });
  return {
    outcome: outcomeOf(replayed, deviceMs, finishedAt - startedAt, question.deviceUsdPerHour),
    requests: replayed,
    deviceMs,
    stepCount: steps.length,
    steps,
    unfinishedCount: replayed.filter((request) => !request.isFinished).length,
    lateGapShare: lateGapShare(replayed),
  };
}

/** Any id that prompts never use. */
const GENERATED_TOKEN_ID = 0;

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
  scheduler: Scheduler,
  arrivals: readonly Arrival[],
  envelope: Envelope,
  now: number,
): void {
  warmingPrompts(arrivals, envelope.kvBlockCount * envelope.kvBlockSize).forEach((prompt, index) => {
    const objectives = { ttftMs: 0, itlMs: 0 };
    const serviceTier: ServiceTier = 'default';
    const who = { session: '', tenant: '', serviceTier };
    const arrival = { ...who, at: now, objectives, isStreamed: false, e2eMs: 0 };
    const counts = { promptTokenCount: prompt.length, cachedTokenCount: 0, completionTokenCount: 1 };
    scheduler.submit(
      { ...specOf({ ...arrival, ...counts }, index, prompt), sequenceId: `warm-${index}` },
      now,
    );
  });
  for (let batch = scheduler.schedule(now); batch !== null; batch = scheduler.schedule(now)) {
    const sampledTokenIds = batch.entries.map((entry) => (entry.isSampled ? GENERATED_TOKEN_ID : -1));
    scheduler.settle({ stepId: batch.stepId, sampledTokenIds, deviceMs: 0 }, now);
  }
}

function noteToken(request: OpenRequest | undefined, now: number): void {
  if (request === undefined) return;
  if (request.firstTokenAt === null) request.firstTokenAt = now;
  else request.gapsMs.push(now - request.lastTokenAt);
  request.lastTokenAt = now;
}

function outcomeOf(
  requests: readonly ReplayedRequest[],
  deviceMs: number,
  spanMs: number,
  deviceUsdPerHour: number,
): Outcome {
  const finished = requests.filter((request) => request.isFinished);
  const completionTokens = finished.reduce((sum, { arrival }) => sum + arrival.completionTokenCount, 0);
  const promptTokens = finished.reduce((sum, { arrival }) => sum + arrival.promptTokenCount, 0);
  const ttfts = requests.map((request) => request.ttftMs);
  const gaps = requests.filter(({ arrival }) => arrival.isStreamed).flatMap((request) => request.gapsMs);
  return {
    deviceMsPerRequest: deviceMs / Math.max(1, finished.length),
    tokensPerSecond: completionTokens / Math.max(0.001, spanMs / 1000),
    ttftP50Ms: quantile(ttfts, 0.5) || 0,
    ttftP95Ms: quantile(ttfts, 0.95) || 0,
    itlP50Ms: quantile(gaps, 0.5) || 0,
    itlP99Ms: quantile(gaps, 0.99) || 0,
    costUsdPerMillionTokens:
      ((deviceMs / 3.6e6) * deviceUsdPerHour * 1e6) / Math.max(1, promptTokens + completionTokens),
  };
}

function lateGapShare(requests: readonly ReplayedRequest[]): number {
  let gapCount = 0;
  let lateCount = 0;
  for (const { arrival, gapsMs } of requests) {
    if (!arrival.isStreamed) continue;
    gapCount += gapsMs.length;
    for (const gapMs of gapsMs) if (gapMs > arrival.objectives.itlMs) lateCount += 1;
  }
  return lateCount / Math.max(1, gapCount);
}
