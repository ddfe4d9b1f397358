/**
 * The words for settings, metrics and states, once for all pages. Called by the proposal, rollout and ledger views.
 * Says nothing about a particular value beyond its unit; sentences about risks are in app/proposals/risks.ts.
 */
import type { LedgerMetric, MetricName, PathSetting, RolloutState, Verdict } from './api.ts';
import { DASH, formatMs, formatTokensPerSecond, formatUsd } from './format.ts';

const settingNames: Readonly<Record<PathSetting, string>> = {
  linear: 'linear layers',
  attention: 'attention',
  threadCount: 'threads',
  tokenBudget: 'token budget',
  maxRunningCount: 'running batch',
  draftTokenCount: 'drafted tokens',
  tiles: 'tiles',
  splitTokens: 'attention splits',
};

export function settingName(setting: PathSetting): string {
  return settingNames[setting];
}

/** A setting's value without the operation's prefix: `linear.int8-generic` is `int8-generic`. */
export function settingValue(value: string | number): string {
  return typeof value === 'number'
    ? value.toLocaleString('en-US')
    : value.replace(/^(linear|attention)\./, '');
}

const metricNames: Readonly<Record<MetricName, string>> = {
  deviceMsPerRequest: 'Device time a request',
  tokensPerSecond: 'Tokens/s out',
  ttftP50Ms: 'TTFT p50',
  ttftP95Ms: 'TTFT p95',
  itlP50Ms: 'ITL p50',
  itlP99Ms: 'ITL p99',
  costUsdPerMillionTokens: 'Cost per M tokens',
};

export function metricName(metric: MetricName): string {
  return metricNames[metric];
}

export function metricValue(metric: MetricName, value: number | null): string {
  if (value === null) return DASH;
  if (metric === 'tokensPerSecond') return formatTokensPerSecond(value);
  if (metric === 'costUsdPerMillionTokens') return formatUsd(value);
  return formatMs(value);
}

/** 1 where more is better, -1 where less is. */
export function betterDirection(metric: MetricName): 1 | -1 {
  return metric === 'tokensPerSecond' ? 1 : -1;
}

export type Tone = 'good' | 'bad' | 'muted';

/** What an interval of a relative change says: better or worse only where all of it lies on one side. */
export function changeTone(metric: MetricName, low: number | null, high: number | null): Tone {
  if (low === null || high === null) return 'muted';
  // What reads as 0 % is neither.
  if (Math.max(Math.abs(low), Math.abs(high)) < 0.0005) return 'muted';
  const direction = betterDirection(metric);
  if (low * direction > 0 && high * direction > 0) return 'good';
  if (low * direction < 0 && high * direction < 0) return 'bad';
  return 'muted';
}

/** The row a ledger entry is compared by: device time where it is there. */
export function leadingRow(rows: readonly LedgerMetric[]): LedgerMetric | undefined {
  return rows.find((row) => row.metric === 'deviceMsPerRequest') ?? rows[0];
}

const stateNames: Readonly<Record<RolloutState, string>> = {
  warming: 'Warming',
  canary: 'Canary',
  live: 'Live',
  rolledBack: 'Rolled back',
  kept: 'Kept the old path',
  failed: 'Failed',
};

export function rolloutStateName(state: RolloutState): string {
  return stateNames[state];
}

const verdictNames: Readonly<Record<Verdict, string>> = {
  better: 'Better',
  worse: 'Worse',
  inconclusive: 'Inconclusive',
};

export function verdictName(verdict: Verdict): string {
  return verdictNames[verdict];
}
