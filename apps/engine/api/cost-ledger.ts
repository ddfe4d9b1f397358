/**
 * Puts a span's cost together: asks the typed queries, and hands what they found to the optimizer's ledger. Called by
 * costs.ledger. How much of a charge is marginal, what holding KV costs and what energy a device ms took comes from the newest
 * 48 h of the span: longer ago, steps are kept by the hour only.
 */
import type { TelemetryClient } from '@variator/clickhouse/client';
import { costGroups } from '@variator/clickhouse/queries/cost-groups';
import { costSummary } from '@variator/clickhouse/queries/cost-summary';
import { keptPrefixes } from '@variator/clickhouse/queries/kept-prefixes';
import { kvPressure } from '@variator/clickhouse/queries/kv-pressure';
import { HOUR_MS } from '@variator/clickhouse/queries/source-of';
import { type SampledStep, stepSample } from '@variator/clickhouse/queries/step-sample';
import { tierDemand } from '@variator/clickhouse/queries/tier-demand';
import { workerEnergy } from '@variator/clickhouse/queries/worker-energy';
import { workerSpans } from '@variator/clickhouse/queries/worker-spans';
import {
  availableMs,
  capacityOf,
  kvResidencyMs,
  kvResidencyPrice,
  priceGroup,
} from '@variator/optimizer/cost-ledger';
import { marginalShares, type TimedStep } from '@variator/optimizer/cost-marginal';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { Fleet } from '../fleet/fleet.ts';
import type { CostGrouping, CostLedger } from './contract.ts';

const MOST_GROUPS = 100;
const RECENT_MS = 48 * HOUR_MS;

export interface LedgerQuestion {
  readonly fromMs: number;
  readonly toMs: number;
  readonly by: CostGrouping;
  readonly now: number;
  readonly deviceUsdPerHour: number;
}

export async function costLedger(
  client: TelemetryClient,
  fleet: Fleet,
  question: LedgerQuestion,
): Promise<CostLedger> {
  const { deviceUsdPerHour, now, by } = question;
  const toMs = Math.min(question.toMs, now);
  const recent = { fromMs: Math.max(question.fromMs, toMs - RECENT_MS), toMs };
  const [summary, groups, demand, spans, kv, steps, energy] = await Promise.all([
    costSummary(client, { ...question, usdPerHour: deviceUsdPerHour }),
    costGroups(client, { ...question, most: MOST_GROUPS }),
    tierDemand(client, question),
    workerSpans(client, question),
    kvPressure(client, recent),
    stepSample(client, recent),
    workerEnergy(client, recent),
  ]);
  const present = fleet
    .workers()
    .map(({ workerId, joinedAt }) => ({ workerId, fromMs: joinedAt, toMs: now }));
  const servedDeviceMs =
    summary.prefillDeviceMs +
    summary.decodeDeviceMs +
    summary.speculationWasteDeviceMs +
    summary.recomputeDeviceMs;
  const capacity = capacityOf({
    availableMs: availableMs([...spans, ...present], { fromMs: question.fromMs, toMs }),
    servedDeviceMs,
    otherDeviceMs: summary.deviceMs - servedDeviceMs,
    demand,
  });
  const marginal = marginalShares(
    timed(
      steps,
      fleet.workers().flatMap(({ fits }) => fits),
    ),
  );
  const price = kvResidencyPrice(kv);
  // While none had to leave, keeping costs nobody anything.
  const keys = price === 0 ? [] : groups.map(({ key }) => key);
  const kept = new Map(
    (await keptPrefixes(client, { ...recent, by, keys })).map((one) => [one.key, one.keptTokenSeconds]),
  );
  const kvBlockSize = fleet.workers()[0]?.envelope.kvBlockSize ?? null;
  const terms = { capacity, demand, marginal, energy, deviceUsdPerHour };
  return {
    by,
    deviceUsdPerHour,
    ...capacity,
    kvDeviceMsPerBlockSecond: price,
    groups: groups.map((group) => {
      const { deviceMsByWorker: _, ...priced } = priceGroup(group, terms);
      const kvMs = kvBlockSize === null ? null : kvResidencyMs(kept.get(group.key) ?? 0, kvBlockSize, price);
      return { ...priced, kvResidencyMs: kvMs };
    }),
  };
}

/** Steps whose kernels a present worker has a fit of. */
function timed(steps: readonly SampledStep[], fits: readonly StepTimeFit[]): TimedStep[] {
  const keyOf = (one: Pick<SampledStep, 'deviceKind' | 'modelHash' | 'kernelsId'>): string =>
    `${one.deviceKind} ${one.modelHash} ${one.kernelsId}`;
  const byKernels = new Map(fits.map((fit) => [keyOf(fit), fit]));
  return steps.flatMap((step) => {
    const fit = byKernels.get(keyOf(step));
    return fit === undefined ? [] : [{ features: step, deviceMs: step.deviceMs, fit }];
  });
}
