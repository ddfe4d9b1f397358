/**
 * A simulated fleet under one routing policy, and what it came to. Used by routing.test.ts and the bench's parts `routing` and
 * `specialise`. The other policies are those of algorithms.md (e), as their papers and servers state them.
 */
import type { ExecutionPath } from '@variator/kernels/execution-path';
import type { Place } from '@variator/scheduler/place-sequence';
import { sessionsOf } from './arrival-sources.ts';
import { fitStepTime } from './fit-step-time.ts';
import { h100Envelope, h100Path, h100Steps } from './fixtures/h100-steps.ts';
import {
  type FleetTraffic,
  fleetSessions,
  type KindName,
  kindOf,
  sessionOf,
} from './fleet-traffic.fixture.ts';
import { rooflinePrior } from './roofline-prior.ts';
import { runTwin } from './twin.ts';
import { gatewayPolicy, type RoutePolicy, TwinRouter } from './twin-router.ts';
import { TwinTotals } from './twin-totals.ts';
import { TwinWorker } from './twin-worker.ts';
import { ValueSketch } from './value-sketch.ts';

const leastOf = (places: readonly Place[], score: (place: Place) => number): number => {
  const scores = places.map(score);
  return scores.indexOf(Math.min(...scores));
};
/** SGLang's router: threshold of the cached share, and when loads count as unequal. */
const CACHE_AWARE = { share: 0.3, absolute: 64, relative: 1.5 } as const;

/** Each call makes one with counters of its own. */
export const policies: Readonly<Record<string, () => RoutePolicy>> = {
  gateway: () => gatewayPolicy,
  'round robin': () => {
    let next = 0;
    return (places) => next++ % places.length;
  },
  'least load': () => (places) => leastOf(places, ({ target }) => target.openCount),
  'session-sticky':
    () =>
    (places, { spec }) =>
      ((sessionOf(spec) * 2_654_435_761) % 2 ** 32) % places.length,
  LMetric: () => (places) =>
    leastOf(places, ({ target }) => (target.pendingPrefillMs + target.ownPrefillMs) * (target.openCount + 1)),
  'cache-aware':
    () =>
    (places, { spec }) => {
      const counts = places.map(({ target }) => target.openCount);
      const [most, least] = [Math.max(...counts), Math.min(...counts)];
      const isUnequal = most - least > CACHE_AWARE.absolute && most > CACHE_AWARE.relative * least;
      const best = leastOf(places, ({ target }) => target.openCount * 1e-6 - target.cachedTokenCount);
      const found = places[best]?.target.cachedTokenCount ?? 0;
      if (!isUnequal && found > CACHE_AWARE.share * spec.promptTokenIds.length) return best;
      return leastOf(places, ({ target }) => target.openCount);
    },
};

export interface FleetRun {
  /** Requests within their objectives, of all that came after the warm-up. */
  readonly goodShare: number;
  readonly requestCount: number;
  readonly deviceMsPerRequest: number;
  readonly cachedShare: number;
  /** The busiest worker's charged device ms to the idlest one's. */
  readonly loadRatio: number;
  readonly ttftP99Ms: Readonly<Partial<Record<KindName, number>>>;
  readonly goodShareOf: Readonly<Partial<Record<KindName, number>>>;
  /** Of the device ms charged. */
  readonly deviceShareOf: Readonly<Partial<Record<KindName, number>>>;
}

export interface FleetQuestion {
  readonly traffic: FleetTraffic;
  readonly policy: RoutePolicy;
  /** One for each worker. */
  readonly paths?: readonly ExecutionPath[];
}

const WORKER_COUNT = 4;
const fit = fitStepTime({
  samples: [
    ...h100Steps('chat', 1000, 1),
    ...h100Steps('agent', 1000, 1),
    ...h100Steps('documents', 1000, 1),
  ],
  prior: rooflinePrior(h100Envelope, h100Path),
  ...{ deviceKind: 'h100', modelHash: 'an-8b', kernelsId: 'k', now: 0 },
});

/** What is open at the span's end is not waited for, and is not counted. */
export function runFleet({ traffic, policy, paths }: FleetQuestion): FleetRun {
  const workers = (paths ?? Array.from({ length: WORKER_COUNT }, () => h100Path)).map(
    (path, index) =>
      new TwinWorker({
        ...{ envelope: h100Envelope, path, fit, noise: 0.03, betweenStepsMs: 0.3 },
        seed: traffic.seed + 1000 * index,
      }),
  );
  const warmMs = 0.25 * traffic.spanMs;
  const kinds = new Map<
    KindName,
    { ttft: ValueSketch; goodCount: number; count: number; deviceMs: number }
  >();
  const charged = workers.map(() => 0);
  let tokens = { prompt: 0, cached: 0 };
  const totals = new TwinTotals(({ spec, arrivedAt, workerIndex, ttftMs, tpotMs, ended }) => {
    if (arrivedAt < warmMs) return;
    const { prefillDeviceMs, decodeDeviceMs, recomputeDeviceMs } = ended.account;
    const ownMs = prefillDeviceMs + decodeDeviceMs + recomputeDeviceMs;
    charged[workerIndex] = (charged[workerIndex] ?? 0) + ownMs;
    tokens = {
      prompt: tokens.prompt + ended.promptTokenCount,
      cached: tokens.cached + ended.cachedTokenCount,
    };
    const name = kindOf(spec);
    const kind = kinds.get(name) ?? { ttft: new ValueSketch(), goodCount: 0, count: 0, deviceMs: 0 };
    kinds.set(name, kind);
    const { ttftMs: mostTtftMs, itlMs } = spec.objectives;
    const isGood = mostTtftMs === 0 || (ttftMs <= mostTtftMs && tpotMs <= itlMs);
    kind.ttft.add(ttftMs);
    kind.count += 1;
    kind.deviceMs += ownMs;
    if (isGood) kind.goodCount += 1;
  });
  runTwin({
    workers,
    source: sessionsOf(fleetSessions(traffic)),
    observer: totals,
    router: new TwinRouter(workers, policy),
    untilMs: traffic.spanMs,
  });
  const all = [...kinds.values()];
  // Who still waits at the end for a first token after its objective is not good either.
  const lateOpenCount = totals.lateOpenCount(traffic.spanMs, warmMs);
  const count = all.reduce((sum, kind) => sum + kind.count, 0);
  const total = charged.reduce((sum, ms) => sum + ms, 0);
  return {
    goodShare: all.reduce((sum, kind) => sum + kind.goodCount, 0) / (count + lateOpenCount),
    requestCount: count,
    deviceMsPerRequest: total / count,
    cachedShare: tokens.cached / tokens.prompt,
    loadRatio: Math.max(...charged) / Math.min(...charged),
    ttftP99Ms: Object.fromEntries([...kinds].map(([name, { ttft }]) => [name, ttft.quantiles()?.p99 ?? 0])),
    deviceShareOf: Object.fromEntries([...kinds].map(([name, { deviceMs }]) => [name, deviceMs / total])),
    goodShareOf: Object.fromEntries([...kinds].map(([name, kind]) => [name, kind.goodCount / kind.count])),
  };
}
