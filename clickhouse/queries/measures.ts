/**
 * The figures that more than one question asks for, defined once as SQL: spans of time, tokens, cost. Used by the other
 * files of this folder; every value in it is a server-side parameter. A figure without anything measured is NULL.
 * Where a question may be asked of the rows or of their sums by hour (source-of.ts), its figures are here by source.
 */
import { z } from 'zod';
import type { QueryParams } from '../client.ts';
import type { Source } from './source-of.ts';

/** A half-open span, epoch ms. */
export interface Span {
  readonly fromMs: number;
  readonly toMs: number;
}

/** The parameters `inSpan` and `endedInSpan` refer to. */
export const spanParams = ({ fromMs, toMs }: Span): QueryParams => ({
  fromMs: Math.floor(fromMs),
  toMs: Math.floor(toMs),
});

const time = (parameter: string): string => `fromUnixTimestamp64Milli({${parameter}:Int64}, 'UTC')`;

export const inSpan = (column: 'startedAt' | 'arrivedAt' | 'hour'): string =>
  `${column} >= ${time('fromMs')} AND ${column} < ${time('toMs')}`;

export const epochMs = (column: string): string => `toUnixTimestamp64Micro(${column}) / 1000`;

export const endedAtMs = `(${epochMs('arrivedAt')} + e2eMs)`;

/**
 * Requests count where they ended: their row is written then, so a bucket of the past does not change any more. The
 * bound of a day on their length lets the primary key skip what is older.
 */
export const endedInSpan =
  `arrivedAt >= ${time('fromMs')} - INTERVAL 1 DAY AND arrivedAt < ${time('toMs')} ` +
  `AND ${endedAtMs} >= {fromMs:Int64} AND ${endedAtMs} < {toMs:Int64}`;

/** Those that had a sequence; whoever asks about work done leaves the others out. */
export const isServed = `outcome != 'refused'`;

type BySource = Readonly<Record<Source, string>>;

/** What follows FROM for the served requests that ended in the span. */
export const endedRequests: BySource = {
  rows: `requests WHERE ${isServed} AND ${endedInSpan}`,
  hours: `requests_hourly WHERE ${isServed} AND ${inSpan('hour')}`,
};

/** The same for the steps that started in it; the columns used below are named alike in both. */
export const startedSteps: BySource = {
  rows: `steps WHERE ${inSpan('startedAt')}`,
  hours: `steps_hourly WHERE ${inSpan('hour')}`,
};

export const requestCount: BySource = { rows: 'count()', hours: 'sum(requestCount)' };

export const failedCount: BySource = {
  rows: `countIf(finishReason = 'error')`,
  hours: `sumIf(requestCount, outcome = 'failed')`,
};

/** Tokens sent to clients, over steps. */
export const completionTokens = `sumIf(emittedTokenCount, kind = 'serve')`;

/**
 * Prompt tokens taken in, over steps: computed or from the prefix cache, each once. Those computed again after a
 * preemption are left out in proportion to their device ms.
 */
export const promptTokens: BySource = {
  rows:
    `sumIf(cachedTokenCount + prefillTokenCount * if(recomputeDeviceMs > 0, ` +
    `prefillDeviceMs / (prefillDeviceMs + recomputeDeviceMs), 1), kind = 'serve')`,
  hours: `sumIf(promptTokenCount, kind = 'serve')`,
};

/** Over steps of every kind, since calibration is paid for too; 3.6e6 ms to the hour. */
export const costUsdPerMillionTokens = (source: Source): string =>
  `sum(deviceMs) * {usdPerHour:Float64} / 3.6e6 * 1e6 ` +
  `/ nullIf(${promptTokens[source]} + ${completionTokens}, 0)`;

export const tokensPerSecond = (tokens: string, seconds: string): string =>
  `if(countIf(kind = 'serve') = 0, NULL, ${tokens} / ${seconds})`;

/**
 * Gaps between tokens, over steps: each step's mean gap weighted by its number of gaps. A t-digest, so bounded in memory
 * and close to exact at the tails; the spread within one step is not in it (all of a step's tokens leave together).
 */
export const itlQuantiles = (source: Source, ...levels: number[]): string =>
  source === 'rows'
    ? `quantilesTDigestWeightedIf(${levels.join(', ')})(itlMeanMs, itlTokenCount, itlTokenCount > 0)`
    : `quantilesTDigestWeightedMerge(${levels.join(', ')})(itlMs)`;

/** Over streamed requests that produced a token: nobody feels the first token of an answer that comes whole. */
export const ttftQuantiles = (source: Source, ...levels: number[]): string =>
  source === 'rows'
    ? `quantilesTDigestIf(${levels.join(', ')})(ttftMs, ttftMs > 0 AND isStreamed)`
    : `quantilesTDigestMerge(${levels.join(', ')})(ttftMs)`;

/** Share within objectives of the requests that have some and whose client stayed; failed ones count as missed. */
export const sloAttainment: BySource = {
  rows:
    `countIf(isWithinObjectives AND finishReason IN ('stop', 'length') AND ttftObjectiveMs > 0) ` +
    `/ nullIf(countIf(finishReason != 'cancelled' AND ttftObjectiveMs > 0), 0)`,
  hours: 'sum(withinObjectivesCount) / nullIf(sum(objectiveCount), 0)',
};

export const figure = z.number().nullable();
