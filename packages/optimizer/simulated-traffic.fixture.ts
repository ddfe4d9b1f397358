/**
 * Simulated days of requests for the regime detector: sessions whose prompts grow turn by turn, tool pauses, bursts, mixed
 * lengths and the swing of a day. Used by regime.test.ts and the bench's part `regimes`; written down in docs/optimizer.md.
 * A phase is in its steady state from its first window on; seeds 1-5 are for work, 6-10 for the report.
 */
import { quantile } from './quantile.ts';
import type { RegimeWindow } from './regime-features.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';

/** One kind of session. Lengths are medians of log-normals. */
interface SessionKind {
  readonly meanTurnCount: number;
  readonly pauseMs: number;
  readonly firstPromptTokens: number;
  /** What a user or a tool adds with each turn. */
  readonly appendTokens: number;
  readonly outputTokens: number;
  /** Of the logarithm of all lengths. */
  readonly spread: number;
}

export interface Workload {
  readonly kinds: readonly (readonly [share: number, kind: SessionKind])[];
  readonly requestsPerSecond: number;
  /** Arrivals of sessions while a burst of about six seconds lasts, relative to others; one a minute. */
  readonly burstFactor: number;
  /** Of a turn's prefix, this share is still cached. */
  readonly keptShare: number;
  readonly promptFactor: number;
  readonly outputFactor: number;
}

const chat: SessionKind = {
  meanTurnCount: 4,
  pauseMs: 15_000,
  firstPromptTokens: 300,
  appendTokens: 60,
  outputTokens: 180,
  spread: 0.7,
};
const agent: SessionKind = {
  meanTurnCount: 15,
  pauseMs: 3000,
  firstPromptTokens: 9000,
  appendTokens: 700,
  outputTokens: 300,
  spread: 0.7,
};
const batch: SessionKind = {
  meanTurnCount: 1,
  pauseMs: 0,
  firstPromptTokens: 2500,
  appendTokens: 0,
  outputTokens: 90,
  spread: 0.5,
};

const workload = (kinds: Workload['kinds'], change: Partial<Workload> = {}): Workload => ({
  kinds,
  requestsPerSecond: 30,
  burstFactor: 3,
  keptShare: 0.95,
  promptFactor: 1,
  outputFactor: 1,
  ...change,
});

/** Shares are of sessions: by requests about half is agents. */
export const mixed = workload([
  [0.55, chat],
  [0.2, agent],
  [0.25, batch],
]);

/** Eight kinds of traffic that a fleet sees again and again. */
export const workloads: readonly Workload[] = [
  mixed,
  workload([[1, chat]]),
  workload([[1, agent]], { burstFactor: 5 }),
  workload([[1, batch]], { requestsPerSecond: 50 }),
  workload([[1, { ...chat, meanTurnCount: 1.5, firstPromptTokens: 120, outputTokens: 1500 }]]),
  workload([[1, { ...batch, firstPromptTokens: 700, outputTokens: 12 }]], { requestsPerSecond: 80 }),
  workload([[1, { ...agent, firstPromptTokens: 2000, outputTokens: 60, pauseMs: 800 }]], { keptShare: 0.5 }),
  workload([
    [0.5, { ...batch, firstPromptTokens: 20_000, outputTokens: 700 }],
    [0.5, { ...chat, outputTokens: 700 }],
  ]),
];

export const WINDOW_MS = 15_000;
export const WINDOWS_A_DAY = 86_400_000 / WINDOW_MS;
/** Sessions that began this long before a phase are still in it. */
const LEAD_IN_MS = 600_000;
const BURST_MS = 6000;
const CALM_MS = 54_000;

interface Request {
  readonly at: number;
  readonly promptTokens: number;
  readonly cachedTokens: number;
  readonly outputTokens: number;
  readonly session: number;
}

/** 3:1 in arrivals between noon and midnight, 10 % either way in lengths, two hours later. */
const rateSwing = (at: number): number => 1 + 0.5 * Math.sin((2 * Math.PI * at) / 86_400_000);
const lengthSwing = (at: number): number => 1 + 0.1 * Math.sin((2 * Math.PI * (at - 7_200_000)) / 86_400_000);

/** The windows of one phase that starts at `startedAt` (ms since a day's start of swing). */
export function windowsOf(
  { kinds, requestsPerSecond, burstFactor, keptShare, promptFactor, outputFactor }: Workload,
  startedAt: number,
  windowCount: number,
  random: SeededRandom,
): RegimeWindow[] {
  const buckets: Request[][] = Array.from({ length: windowCount }, () => []);
  const turnsPerSession = kinds.reduce((sum, [share, kind]) => sum + share * kind.meanTurnCount, 0);
  const burstShare = BURST_MS / (BURST_MS + CALM_MS);
  const calmRate =
    requestsPerSecond / turnsPerSession / (1 + burstShare * (burstFactor - 1)) / 1000; /* sessions per ms */
  const exponential = (mean: number): number => -mean * Math.log(1 - random.uniform());
  const lengths = (middle: number, spread: number): number =>
    Math.max(1, Math.round(middle * Math.exp(spread * random.normal())));
  const endsAt = startedAt + windowCount * WINDOW_MS;
  let sessionCount = 0;
  let isBurst = false;
  let changesAt = startedAt - LEAD_IN_MS;
  const highest = calmRate * burstFactor * 1.5;
  for (let at = changesAt; ; ) {
    at += exponential(1 / highest);
    if (at >= endsAt)
      return buckets.map((bucket, index) => windowFrom(bucket, startedAt + index * WINDOW_MS));
    while (at >= changesAt) {
      isBurst = !isBurst;
      changesAt += exponential(isBurst ? BURST_MS : CALM_MS);
    }
    const rate = calmRate * (isBurst ? burstFactor : 1) * rateSwing(at);
    if (random.uniform() * highest < rate) playSession(at);
  }

  function playSession(from: number): void {
    const drawn = random.uniform();
    let reached = 0;
    const kind = kinds.find(([share]) => {
      reached += share;
      return drawn < reached;
    })?.[1];
    if (kind === undefined) return;
    const { spread } = kind;
    const session = sessionCount;
    sessionCount += 1;
    let prefix = 0;
    let prompt = lengths(kind.firstPromptTokens, spread);
    for (let at = from; at < endsAt; at += exponential(kind.pauseMs) + 500) {
      const output = lengths(kind.outputTokens, spread);
      const bucket = buckets[Math.floor((at - startedAt) / WINDOW_MS)];
      bucket?.push({
        at,
        promptTokens: prompt * promptFactor * lengthSwing(at),
        cachedTokens: random.uniform() < keptShare ? prefix * promptFactor * lengthSwing(at) : 0,
        outputTokens: output * outputFactor * lengthSwing(at),
        session,
      });
      if (random.uniform() < 1 / kind.meanTurnCount) return;
      prefix = prompt;
      prompt += output + lengths(kind.appendTokens, spread);
    }
  }
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

/** As clickhouse/queries/workload-windows.ts counts it. */
export function windowFrom(requests: readonly Request[], startedAt: number): RegimeWindow {
  const arrivals = requests.map(({ at }) => at).sort((a, b) => a - b);
  const gaps = arrivals.slice(1).map((at, index) => at - (arrivals[index] ?? 0));
  const cv2 = mean(gaps.map((gap) => gap * gap)) / mean(gaps) ** 2 - 1;
  const prompts = requests.map(({ promptTokens }) => Math.log(Math.max(1, promptTokens)));
  const isEmpty = requests.length === 0;
  const sessionCount = new Set(requests.map(({ session }) => session)).size;
  return {
    startedAt,
    windowMs: WINDOW_MS,
    requestCount: requests.length,
    sessionCount,
    features: {
      meanLogPrompt: isEmpty ? null : mean(prompts),
      p90LogPrompt: isEmpty ? null : quantile(prompts, 0.9),
      meanLog1pUncached: isEmpty
        ? null
        : mean(requests.map((request) => Math.log1p(request.promptTokens - request.cachedTokens))),
      meanLogOutput: isEmpty
        ? null
        : mean(requests.map((request) => Math.log(Math.max(1, request.outputTokens)))),
      logArrivalRate: isEmpty ? null : Math.log((requests.length * 1000) / WINDOW_MS),
      logSessionRate: isEmpty ? null : Math.log((sessionCount * 1000) / WINDOW_MS),
      logCv2: gaps.length < 2 ? null : Math.log(Math.max(1e-3, cv2)),
      meanHitShare: isEmpty
        ? null
        : mean(requests.map((request) => request.cachedTokens / request.promptTokens)),
    },
  };
}

/** Phases one after the other, from a start within the day that the seed draws. */
export function playPhases(
  phases: readonly { readonly workload: Workload; readonly windowCount: number }[],
  seed: number,
): RegimeWindow[] {
  const random = seededRandom(seed);
  let at = Math.floor(random.uniform() * WINDOWS_A_DAY) * WINDOW_MS;
  return phases.flatMap((phase) => {
    const windows = windowsOf(phase.workload, at, phase.windowCount, random);
    at += phase.windowCount * WINDOW_MS;
    return windows;
  });
}

/** What the share of cached tokens of a workload is, on average over its requests. */
export function cachedShareOf(workload: Workload, seed: number): number {
  const windows = windowsOf(workload, 0, 200, seededRandom(seed));
  return mean(windows.map((window) => window.features.meanHitShare ?? 0));
}
