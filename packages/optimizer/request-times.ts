/**
 * What a step-time fit says of requests without replaying any: TTFT and TPOT beside a given load, and the most a path can
 * sustain. Means of a steady state, for dashboards and first filters; tails and queues that build up are the twin's to tell.
 * Pure.
 */
import { predictMs, type StepFeatures, type StepTimeModel } from '@variator/scheduler/step-time';

/** A request as the mean of its kind. */
export interface RequestShape {
  readonly promptTokenCount: number;
  /** Of the prompt, what the prefix cache holds. */
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
}

/** What of a path and its device bounds a batch. */
export interface BatchLimits {
  readonly tokenBudget: number;
  readonly maxRunningCount: number;
  /** KV blocks times their size. */
  readonly kvTokenCount: number;
}

export interface SteadyState {
  readonly runningCount: number;
  readonly stepMs: number;
  readonly ttftMs: number;
  readonly tpotMs: number;
  readonly requestsPerSecond: number;
  readonly tokensPerSecond: number;
}

/** Between two steps: composing, settling, sending. */
const BETWEEN_STEPS_MS = 0.3;

/**
 * A request's time to its first token, beside sequences that decode meanwhile and behind prompt tokens of others: the steps
 * that its chunks take, one after the other. Counts from the start of a step.
 */
export function predictTtftMs(
  model: StepTimeModel,
  tokenBudget: number,
  load: {
    readonly decodingCount: number;
    readonly meanContextTokens: number;
    readonly queuedPrefillTokens: number;
  },
  shape: RequestShape,
): number {
  const { decodingCount } = load;
  const room = Math.max(1, tokenBudget - decodingCount);
  let context = load.meanContextTokens * decodingCount;
  let ms = 0;
  let queued = load.queuedPrefillTokens;
  let cached = shape.cachedTokenCount;
  let left = uncachedTokens(shape);
  while (left > 0) {
    const ofOthers = Math.min(queued, room);
    const own = Math.min(left, room - ofOthers);
    if (ms > 0) ms += BETWEEN_STEPS_MS;
    ms += predictMs(model, {
      tokenCount: decodingCount + ofOthers + own,
      decodeSequenceCount: decodingCount,
      prefillSequenceCount: (ofOthers > 0 ? 1 : 0) + (own > 0 ? 1 : 0),
      prefillTokenCount: ofOthers + own,
      decodeContextTokens: context,
      prefillAttention: ofOthers * (ofOthers / 2) + own * (cached + own / 2),
    });
    queued -= ofOthers;
    cached += own;
    left -= own;
    context += decodingCount;
  }
  return ms;
}

/** `runningCount` requests of one shape at any time, each followed by the next: what a step, a token and a request take. */
export function steadyState(
  model: StepTimeModel,
  limits: BatchLimits,
  shape: RequestShape,
  runningCount: number,
): SteadyState {
  const uncached = uncachedTokens(shape);
  const meanContext = shape.promptTokenCount + shape.completionTokenCount / 2;
  const room = Math.max(1, limits.tokenBudget - runningCount);
  const chunkCount = Math.ceil(uncached / room);
  // The first token comes of the last chunk; the others take a decode step each.
  const decodeSteps = Math.max(1, shape.completionTokenCount - 1);
  // Of a request's life its prefill is chunkCount steps, so that many of the running are prefilling at any time.
  const prefilling = (runningCount * chunkCount) / (decodeSteps + chunkCount);
  const decoding = runningCount - prefilling;
  const atOnce = Math.max(1, Math.min(prefilling, room / (uncached / chunkCount)));
  const mixedShare = Math.min(1, prefilling / atOnce);
  const decodeOnly: StepFeatures = {
    tokenCount: decoding,
    decodeSequenceCount: decoding,
    prefillSequenceCount: 0,
    prefillTokenCount: 0,
    decodeContextTokens: decoding * meanContext,
    prefillAttention: 0,
  };
  const chunkTokens = (atOnce * uncached) / chunkCount;
  const mixed: StepFeatures = {
    ...decodeOnly,
    tokenCount: decoding + chunkTokens,
    prefillSequenceCount: atOnce,
    prefillTokenCount: chunkTokens,
    prefillAttention: (atOnce * uncached * (shape.cachedTokenCount + uncached / 2)) / chunkCount,
  };
  const mixedMs = predictMs(model, mixed);
  const decodeMs = decoding > 0 ? predictMs(model, decodeOnly) : 0;
  const stepMs = BETWEEN_STEPS_MS + mixedShare * mixedMs + (1 - mixedShare) * decodeMs;
  const requestsPerSecond = (1000 * runningCount) / ((decodeSteps + chunkCount) * stepMs);
  return {
    runningCount,
    stepMs,
    ttftMs: chunkCount * (BETWEEN_STEPS_MS + mixedMs) - BETWEEN_STEPS_MS,
    tpotMs: stepMs,
    requestsPerSecond,
    tokensPerSecond: requestsPerSecond * shape.completionTokenCount,
  };
}

/** As many at once as batch, budget and KV blocks hold. */
export function mostSustained(model: StepTimeModel, limits: BatchLimits, shape: RequestShape): SteadyState {
  const uncached = uncachedTokens(shape);
  const share = shape.completionTokenCount / (shape.completionTokenCount + uncached);
  const contextTokens = shape.promptTokenCount + shape.completionTokenCount;
  const runningCount = Math.max(
    1,
    Math.floor(
      Math.min(
        limits.maxRunningCount,
        // Every token that decodes brings its share of prompt tokens into the same budget.
        limits.tokenBudget * share,
        limits.kvTokenCount / contextTokens,
      ),
    ),
  );
  return steadyState(model, limits, shape, runningCount);
}

/** The last token of a prompt is computed even where all of it is cached. */
const uncachedTokens = (shape: RequestShape): number =>
  Math.max(1, shape.promptTokenCount - shape.cachedTokenCount);
