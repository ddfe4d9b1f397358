/** The report of a replay as people read it: one row for the whole and each tier, then what a reader should know. Pure. */

import type { Quantiles } from '@variator/optimizer/value-sketch';
import { table } from '../table.ts';
import type { EndpointAbilities } from './endpoint-probe.ts';
import type { TrafficSource } from './planned-traffic.ts';
import type { TierReport, TrafficReport } from './traffic-report.ts';

/** From here on, the times tell more about the client than about the server. */
const SLOW_SENDER_MS = 20;

export function reportText(
  report: TrafficReport,
  abilities: EndpointAbilities,
  source: Pick<TrafficSource, 'faults' | 'remarks'>,
): string {
  const names = Object.keys(report.tiers);
  const isSplit = names.length > 1 || (names[0] ?? 'none') !== 'none';
  const tiers: [string, TierReport][] = [
    ['all', report.all],
    ...(isSplit ? Object.entries(report.tiers) : []),
  ];
  const counts = table(
    ['tier', 'requests', 'ok', 'req/s', 'tok/s in', 'tok/s out', 'cached', 'goodput/s', 'attainment'],
    tiers.map(([name, tier]) => [
      name,
      String(tier.requestCount),
      String(tier.okCount),
      rate(tier.requestsPerSecond),
      tier.promptTokensPerSecond.toFixed(0),
      tier.completionTokensPerSecond.toFixed(0),
      percent(tier.cachedShare),
      tier.goodputPerSecond === null ? '-' : rate(tier.goodputPerSecond),
      percent(tier.attainment),
    ]),
  );
  const times = table(
    ['tier', 'time', 'p50', 'p90', 'p95', 'p99', 'max'],
    tiers.flatMap(([name, tier]) => [
      timeRow(name, 'TTFT', tier.ttftMs),
      timeRow(name, 'ITL', tier.itlMs),
      timeRow(name, 'TPOT', tier.tpotMs),
      timeRow(name, 'E2E', tier.e2eMs),
    ]),
  );
  return [counts, '', times, '', ...notes(report, abilities, source)].join('\n');
}

function notes(
  report: TrafficReport,
  abilities: EndpointAbilities,
  source: Pick<TrafficSource, 'faults' | 'remarks'>,
): string[] {
  const { all, latenessMs, plannedPromptTokenCount, plannedCompletionTokenCount } = report;
  const faults = Object.entries(all.faultCounts).map(
    ([kind, count]) => `${count} ${kind}: ${report.faultExamples[kind] ?? ''}`,
  );
  const isTooLong = Object.values(report.faultExamples).some((text) => /context length|too long/i.test(text));
  return [
    `${report.sessionCount} sessions in ${report.durationSeconds.toFixed(1)} s, at most ${report.mostInFlightCount} requests at once; times count from when a request should have been sent.`,
    `Sent late by: p50 ${ms(latenessMs?.p50)}, p99 ${ms(latenessMs?.p99)}, max ${ms(latenessMs?.max)}.${(latenessMs?.p99 ?? 0) > SLOW_SENDER_MS ? ' The sender could not keep up: lower --speed, or raise --max-in-flight.' : ''}`,
    ...(plannedPromptTokenCount > 0
      ? [
          `Planned ${plannedPromptTokenCount} prompt and ${plannedCompletionTokenCount} output tokens; the server counts ${all.promptTokenCount} and ${all.completionTokenCount} for what it answered.`,
        ]
      : []),
    ...(report.unsentTurnCount > 0
      ? [
          `${report.unsentTurnCount} turns of begun sessions were not sent: one before failed, or time was over.`,
        ]
      : []),
    ...faults.map((line) => `Failed: ${line}`),
    ...(isTooLong
      ? [
          `Some prompts are longer than the model takes (${abilities.maxModelLenTokens ?? '?'} tokens): lower --scale.`,
        ]
      : []),
    ...(abilities.takesIgnoreEos
      ? []
      : ['The server takes no ignore_eos: answers may be shorter than recorded.']),
    ...source.faults
      .list()
      .map(({ reason, count, first }) => `In the trace: ${count} x ${reason}, first at ${first}.`),
    ...source.remarks(),
  ];
}

const timeRow = (tier: string, name: string, found: Quantiles | null): string[] => [
  tier,
  name,
  ...[found?.p50, found?.p90, found?.p95, found?.p99, found?.max].map(ms),
];

const ms = (value: number | undefined): string => {
  if (value === undefined) return '-';
  if (value < 10) return `${value.toFixed(1)} ms`;
  return value < 10_000 ? `${value.toFixed(0)} ms` : `${(value / 1000).toFixed(1)} s`;
};

const rate = (value: number): string => value.toFixed(value < 10 ? 2 : 1);
const percent = (share: number | null): string => (share === null ? '-' : `${(share * 100).toFixed(1)} %`);
