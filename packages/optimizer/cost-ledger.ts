/**
 * Whose the device's time is, all of it: what was charged to requests, the idle time that stands ready for the objectives
 * of interactive tiers, and the overhead that is nobody's. Called by the API's costs.ledger with what the typed queries
 * found. Three prices, never one: marginal (what one request more costs), attributed (its share of the steps it was in),
 * fully loaded (with its tier's headroom). Pure.
 */
import type { ServiceTier } from '@variator/scheduler/sequence';
import type { MarginalShares } from './cost-marginal.ts';

/** Above this load waiting grows faster than the work: what is idle below it is bought by the objectives. */
export const TARGET_LOAD = 0.7;

const interactiveTiers = ['priority', 'default'] as const;
const MS_PER_HOUR = 3.6e6;

/** Requests that have one thing in common, and what they were charged. */
export interface ChargedGroup {
  readonly key: string;
  readonly requestCount: number;
  /** Those that met all objectives they had. */
  readonly goodRequestCount: number;
  /** Cached ones included. */
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
  readonly prefillDeviceMs: number;
  readonly decodeDeviceMs: number;
  readonly speculationWasteDeviceMs: number;
  readonly recomputeDeviceMs: number;
  /** The same device ms by tier. */
  readonly priorityDeviceMs: number;
  readonly defaultDeviceMs: number;
  readonly flexDeviceMs: number;
  /** And by worker. */
  readonly deviceMsByWorker: Readonly<Record<string, number>>;
}

/** What a worker's device took, J, its pauses included, while it ran steps of so many device ms. */
export interface WorkerEnergy {
  readonly workerId: string;
  readonly energyJoules: number;
  readonly deviceMs: number;
}

export interface TierDemand {
  readonly serviceTier: ServiceTier;
  readonly deviceMs: number;
  /** 95th percentile of the device ms that its requests were charged in a bucket of time. */
  readonly peakDeviceMs: number;
}

/** A span's device time; serving + other + headroom + overhead = available. */
export interface Capacity {
  readonly availableMs: number;
  readonly servedDeviceMs: number;
  /** Calibration and equality checks. */
  readonly otherDeviceMs: number;
  /** Idle, and wanted so: room for the interactive tiers' peaks. */
  readonly headroomMs: number;
  /** Idle beyond that. */
  readonly overheadMs: number;
}

export function capacityOf(measured: {
  readonly availableMs: number;
  readonly servedDeviceMs: number;
  readonly otherDeviceMs: number;
  readonly demand: readonly TierDemand[];
}): Capacity {
  const { servedDeviceMs, otherDeviceMs } = measured;
  // Steps were there while they ran, whatever is known of their worker.
  const availableMs = Math.max(measured.availableMs, servedDeviceMs + otherDeviceMs);
  const idleMs = availableMs - servedDeviceMs - otherDeviceMs;
  const isWanted = peakOf(measured.demand) > 0;
  const headroomMs = isWanted ? Math.min(idleMs, (1 - TARGET_LOAD) * availableMs) : 0;
  return { availableMs, servedDeviceMs, otherDeviceMs, headroomMs, overheadMs: idleMs - headroomMs };
}

export interface PricedGroup extends ChargedGroup {
  readonly deviceMs: number;
  /** null where no step of the span says how much of a charge is marginal. */
  readonly marginalDeviceMs: number | null;
  readonly headroomMs: number;
  readonly deviceMsPerGoodRequest: number | null;
  readonly marginalUsdPerMillionTokens: number | null;
  readonly attributedUsdPerMillionTokens: number | null;
  readonly fullyLoadedUsdPerMillionTokens: number | null;
  readonly fullyLoadedUsd: number;
  /** Its share by device ms of what its workers' devices took, J, idle included; null where none of them says. */
  readonly energyJoules: number | null;
}

export interface PriceTerms {
  readonly capacity: Capacity;
  readonly demand: readonly TierDemand[];
  readonly marginal: MarginalShares;
  /** Of the workers whose devices say. */
  readonly energy: readonly WorkerEnergy[];
  readonly deviceUsdPerHour: number;
}

/**
 * Headroom is a tier's by its share of the interactive tiers' peaks (peak-load pricing), and in a tier everybody's by what
 * was charged to it: over all groups of a partition it adds up to the whole.
 */
export function priceGroup(group: ChargedGroup, terms: PriceTerms): PricedGroup {
  const { capacity, demand, marginal, deviceUsdPerHour } = terms;
  const prefillMs = group.prefillDeviceMs + group.recomputeDeviceMs;
  const decodeMs = group.decodeDeviceMs + group.speculationWasteDeviceMs;
  const deviceMs = prefillMs + decodeMs;
  const peakMs = peakOf(demand);
  const headroomMs = interactiveTiers.reduce((sum, tier) => {
    const own = demand.find(({ serviceTier }) => serviceTier === tier);
    if (own === undefined || own.deviceMs === 0 || peakMs === 0) return sum;
    const tierHeadroomMs = (capacity.headroomMs * own.peakDeviceMs) / peakMs;
    return sum + (tierHeadroomMs * group[`${tier}DeviceMs`]) / own.deviceMs;
  }, 0);
  const marginalMs = scaled(prefillMs, marginal.prefill);
  const marginalDecodeMs = scaled(decodeMs, marginal.decode);
  const marginalDeviceMs =
    marginalMs === null || marginalDecodeMs === null ? null : marginalMs + marginalDecodeMs;
  const tokenCount = group.promptTokenCount + group.completionTokenCount;
  const usd = (ms: number): number => (ms / MS_PER_HOUR) * deviceUsdPerHour;
  const perMillion = (ms: number | null): number | null =>
    ms === null || tokenCount === 0 ? null : (usd(ms) / tokenCount) * 1e6;
  return {
    ...group,
    deviceMs,
    marginalDeviceMs,
    headroomMs,
    deviceMsPerGoodRequest: group.goodRequestCount === 0 ? null : deviceMs / group.goodRequestCount,
    marginalUsdPerMillionTokens: perMillion(marginalDeviceMs),
    attributedUsdPerMillionTokens: perMillion(deviceMs),
    fullyLoadedUsdPerMillionTokens: perMillion(deviceMs + headroomMs),
    fullyLoadedUsd: usd(deviceMs + headroomMs),
    energyJoules: energyOf(group, terms.energy),
  };
}

/** A worker's joules are shared by device ms, so that over all groups and other steps they add up to what it took. */
function energyOf(group: ChargedGroup, energy: readonly WorkerEnergy[]): number | null {
  const told = energy.filter(
    ({ workerId, deviceMs }) => deviceMs > 0 && Object.hasOwn(group.deviceMsByWorker, workerId),
  );
  if (told.length === 0) return null;
  return told.reduce(
    (sum, { workerId, energyJoules, deviceMs }) =>
      sum + (energyJoules * (group.deviceMsByWorker[workerId] ?? 0)) / deviceMs,
    0,
  );
}

/** Device ms that a KV block costs for a second of being held idle: what its lack made others compute again. */
export function kvResidencyPrice(window: {
  readonly recomputeDeviceMs: number;
  readonly evictedBlockCount: number;
  /** Blocks that nobody who ran held, times seconds. */
  readonly idleBlockSeconds: number;
}): number {
  // Blocks leave the cache only when the pool is full; before that, holding costs nobody anything.
  if (window.evictedBlockCount === 0 || window.idleBlockSeconds <= 0) return 0;
  return window.recomputeDeviceMs / window.idleBlockSeconds;
}

/**
 * Device ms of what the cache kept for a group until it came back, at the residency price. A price beside the others: the
 * recomputed ms that it is made of are charged to those who recomputed, so it adds to no sum.
 */
export function kvResidencyMs(
  keptTokenSeconds: number,
  kvBlockSize: number,
  deviceMsPerBlockSecond: number,
): number {
  return (keptTokenSeconds / kvBlockSize) * deviceMsPerBlockSecond;
}

/** When a worker was there to be used, epoch ms. */
export interface Presence {
  readonly workerId: string;
  readonly fromMs: number;
  readonly toMs: number;
}

/** Worker ms within a span; a worker known from its steps and from the fleet counts once. */
export function availableMs(
  presences: readonly Presence[],
  span: { readonly fromMs: number; readonly toMs: number },
): number {
  const byWorker = new Map<string, Presence[]>();
  for (const presence of presences) {
    byWorker.set(presence.workerId, [...(byWorker.get(presence.workerId) ?? []), presence]);
  }
  let sum = 0;
  for (const own of byWorker.values()) {
    let reachedMs = span.fromMs;
    for (const { fromMs, toMs } of own.sort((a, b) => a.fromMs - b.fromMs)) {
      const endMs = Math.min(toMs, span.toMs);
      sum += Math.max(0, endMs - Math.max(fromMs, reachedMs));
      reachedMs = Math.max(reachedMs, endMs);
    }
  }
  return sum;
}

const peakOf = (demand: readonly TierDemand[]): number =>
  demand.reduce((sum, { serviceTier, peakDeviceMs }) => sum + (serviceTier === 'flex' ? 0 : peakDeviceMs), 0);

/** Nothing stays nothing, even where its price is not known. */
const scaled = (ms: number, share: number | null): number | null =>
  ms === 0 ? 0 : share === null ? null : ms * share;
