/**
 * A worker on a virtual clock, for tests and benches: the real scheduler, and in the device's place a step-time model with
 * noise that the scheduler's own fit need not know. Never imported by the product.
 */
import { seededRandom } from './paper-device.ts';
import { Scheduler, type SchedulerOptions } from './scheduler.ts';
import type { EndedSequence, Objectives, SequenceSpec, ServiceTier } from './sequence.ts';
import { chargeStep, predictMs, type StepFeatures, type StepTimeFit } from './step-time.ts';

export interface VirtualArrival {
  readonly at: number;
  readonly promptTokens: number;
  readonly completionTokens: number;
  readonly serviceTier?: ServiceTier;
  readonly tenant?: string;
  readonly program?: string;
  readonly objectives?: Objectives;
}

export interface VirtualQuestion {
  readonly arrivals: readonly VirtualArrival[];
  readonly options: SchedulerOptions;
  /** What steps take. */
  readonly device: StepTimeFit;
  /** What the scheduler knows of it. */
  readonly fit: StepTimeFit | null;
  readonly seed: number;
  /** Spread of the log of a step's time; one step in a hundred takes 1.3 to 2 times as long where it is not 0. */
  readonly noise?: number;
  /** Between two steps. */
  readonly betweenMs?: number;
  /** Nothing runs any more from here on. */
  readonly untilMs?: number;
}

export interface VirtualRequest {
  readonly arrival: VirtualArrival;
  firstTokenAt: number | null;
  readonly tokenTimes: number[];
  ended: EndedSequence | null;
  endedAt: number | null;
}

export interface VirtualStep {
  readonly at: number;
  readonly features: StepFeatures;
  readonly deviceMs: number;
  /** Indices of the requests in it, and what each of them was charged. */
  readonly requests: readonly number[];
  readonly chargedMs: readonly number[];
  readonly waitingCount: number;
}

export interface VirtualRun {
  readonly requests: readonly VirtualRequest[];
  readonly steps: readonly VirtualStep[];
  readonly deviceMs: number;
  readonly spanMs: number;
}

export function runVirtually(question: VirtualQuestion): VirtualRun {
  const { arrivals, options, device, fit, noise = 0, betweenMs = 0.3 } = question;
  const scheduler = new Scheduler(options);
  scheduler.setFit(fit);
  const random = seededRandom(question.seed);
  const requests = arrivals.map(
    (arrival): VirtualRequest => ({
      arrival,
      firstTokenAt: null,
      tokenTimes: [],
      ended: null,
      endedAt: null,
    }),
  );
  const steps: VirtualStep[] = [];
  const untilMs = question.untilMs ?? Number.POSITIVE_INFINITY;
  let next = 0;
  let deviceMs = 0;
  let now = arrivals[0]?.at ?? 0;
  const startedAt = now;
  while (now < untilMs) {
    for (; next < arrivals.length && (arrivals[next]?.at ?? 0) <= now; next += 1) {
      const arrival = arrivals[next];
      if (arrival !== undefined) scheduler.submit(specOf(arrival, next), arrival.at);
    }
    const batch = scheduler.schedule(now);
    if (batch === null) {
      const later = arrivals[next];
      if (later === undefined) break;
      now = later.at;
      continue;
    }
    const stepMs = predictMs(device, batch.features) * (noise > 0 ? noiseOf(random, noise) : 1);
    now += stepMs;
    deviceMs += stepMs;
    steps.push({
      at: now,
      features: batch.features,
      deviceMs: stepMs,
      requests: batch.entries.map(({ sequenceId }) => Number(sequenceId)),
      chargedMs: chargeStep(batch.entries, stepMs, fit),
      waitingCount: scheduler.counts().waitingCount,
    });
    const sampledTokenIds = batch.entries.map(({ isSampled }) => (isSampled ? 1 : -1));
    const settled = scheduler.settle({ stepId: batch.stepId, sampledTokenIds, deviceMs: stepMs }, now);
    for (const { sequenceId } of settled.events) {
      const request = requests[Number(sequenceId)];
      if (request === undefined) continue;
      request.firstTokenAt ??= now;
      request.tokenTimes.push(now);
    }
    for (const ended of settled.ended) {
      const request = requests[Number(ended.sequenceId)];
      if (request === undefined) continue;
      request.ended = ended;
      request.endedAt = now;
    }
    now += betweenMs;
  }
  return { requests, steps, deviceMs, spanMs: now - startedAt };
}

export const deviceMsOf = ({ account }: EndedSequence): number =>
  account.prefillDeviceMs +
  account.decodeDeviceMs +
  account.speculationWasteDeviceMs +
  account.recomputeDeviceMs;

export const gapsOf = ({ tokenTimes }: VirtualRequest): number[] =>
  tokenTimes.slice(1).map((at, index) => at - (tokenTimes[index] ?? at));

/** Exponential with this mean. */
export const exponential = (random: () => number, mean: number): number => -Math.log(1 - random()) * mean;

function noiseOf(random: () => number, spread: number): number {
  const normal = Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
  const outlier = random() < 0.01 ? 1.3 + 0.7 * random() : 1;
  return Math.exp(spread * normal) * outlier;
}

/** Every prompt has a beginning of its own: nothing comes from the cache. */
function specOf(arrival: VirtualArrival, index: number): SequenceSpec {
  return {
    sequenceId: String(index),
    promptTokenIds: Array.from({ length: arrival.promptTokens }, (_, at) => index * 16_384 + at),
    generatedTokenIds: [],
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
    maxTokens: arrival.completionTokens,
    stopTokenIds: [],
    tenant: arrival.tenant ?? 'one',
    program: arrival.program ?? '',
    serviceTier: arrival.serviceTier ?? 'default',
    objectives: arrival.objectives ?? { ttftMs: 0, itlMs: 0 },
    ageLimits: null,
    cacheSalt: '',
  };
}
