/**
 * Traffic for the gates of scheduling, on a virtual clock: for their test and their bench. A small CPU-like device whose
 * steps scatter by 3 %, one in a hundred by up to twice its time, 5 % slower than the fit that the scheduler knows; chats
 * that are read along under an ITL objective, agents with longer prompts whose calls form programs, batch lines in flex.
 */

import { seededRandom } from './paper-device.ts';
import type { SchedulerOptions } from './scheduler.ts';
import type { StepTimeFit } from './step-time.ts';
import {
  deviceMsOf,
  exponential,
  gapsOf,
  runVirtually,
  type VirtualArrival,
  type VirtualRun,
} from './virtual-clock.fixture.ts';

export const ITL_OBJECTIVE_MS = 60;

const fit: StepTimeFit = {
  fitId: 'fit',
  deviceKind: 'cpu',
  modelHash: 'm',
  kernelsId: 'k',
  fittedAt: 0,
  sampleCount: 400,
  kneeTokens: 8,
  betaMs: {
    perStep: 5,
    perToken: 0.1,
    perTokenAboveKnee: 0.2,
    perDecodeSequence: 0.02,
    perPrefillSequence: 0.05,
    perDecodeContextToken: 0.0005,
    perPrefillAttention: 0.0001,
  },
  heldOutMape: null,
  heldOutCount: 0,
  logBand90: null,
};

const slower = (by: number): StepTimeFit => {
  const entries = Object.entries(fit.betaMs).map(([term, ms]) => [term, ms * by]);
  return { ...fit, betaMs: Object.fromEntries(entries) as StepTimeFit['betaMs'] };
};

const options: SchedulerOptions = {
  blockCount: 4096,
  blockSize: 16,
  maxModelLenTokens: 4096,
  limits: { tokenBudget: 512, maxRunningCount: 32 },
  numericsId: 'A',
};

const read = { ttftMs: 2000, itlMs: ITL_OBJECTIVE_MS };
const quantile = (values: readonly number[], share: number): number => {
  const sorted = Float64Array.from(values).sort();
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
};

/** What one of the requests below costs on the average in company, ms. */
const MEAN_REQUEST_MS = 310;

/** Chats and agents that keep the device busy for about so much of the time. */
function interactive(load: number, spanMs: number, seed: number): VirtualArrival[] {
  const random = seededRandom(seed);
  const between = (least: number, most: number): number => least + Math.floor(random() * (most - least));
  const arrivals: VirtualArrival[] = [];
  for (let at = exponential(random, MEAN_REQUEST_MS / load); at < spanMs; ) {
    const isAgent = random() < 0.4;
    arrivals.push({
      at,
      promptTokens: isAgent ? between(400, 1600) : between(30, 300),
      completionTokens: isAgent ? between(10, 40) : between(30, 90),
      objectives: read,
      ...(isAgent ? { program: `program-${between(0, 8)}` } : {}),
      tenant: `tenant-${between(0, 4)}`,
      serviceTier: random() < 0.2 ? 'priority' : 'default',
    });
    at += exponential(random, MEAN_REQUEST_MS / load);
  }
  return arrivals;
}

const runOn = (arrivals: readonly VirtualArrival[], seed: number, untilMs?: number): VirtualRun =>
  runVirtually({
    arrivals,
    options,
    device: slower(1.05),
    fit,
    seed,
    noise: 0.03,
    ...(untilMs === undefined ? {} : { untilMs }),
  });

const readGaps = ({ requests }: VirtualRun): number[] =>
  requests.filter(({ arrival }) => arrival.serviceTier !== 'flex').flatMap(gapsOf);

export interface LoadedFigures {
  readonly load: number;
  /** ITL p99 to its objective. */
  readonly itlShare: number;
  /** The longest wait for a first token to its tier's median, of the tier where that is most. */
  readonly longestWait: number;
}

/** At about 0.8 load. */
export function loadedFigures(seed: number, spanMs = 120_000): LoadedFigures {
  const run = runOn(interactive(0.8, spanMs, seed), seed);
  const waits = (['priority', 'default'] as const).map((tier) => {
    const own = run.requests.filter(({ arrival }) => arrival.serviceTier === tier);
    const waited = own.map(({ arrival, firstTokenAt }) => (firstTokenAt ?? Number.NaN) - arrival.at);
    return Math.max(...waited) / quantile(waited, 0.5);
  });
  return {
    load: run.deviceMs / run.spanMs,
    itlShare: quantile(readGaps(run), 0.99) / ITL_OBJECTIVE_MS,
    longestWait: Math.max(...waits),
  };
}

/** Two tenants with more waiting than can run: the widest gap between what they were charged, to the largest request. */
export function tenantGap(seed: number): number {
  const random = seededRandom(seed);
  const arrivals = Array.from({ length: 800 }, (_, index): VirtualArrival => {
    const isGreedy = index < 400;
    return {
      at: 0,
      promptTokens: 50 + Math.floor(random() * (isGreedy ? 800 : 200)),
      completionTokens: 10 + Math.floor(random() * 60),
      tenant: isGreedy ? 'greedy' : 'modest',
    };
  });
  const run = runOn(arrivals, seed, 40_000);
  const costs = run.requests.map(({ ended }) => (ended === null ? 0 : deviceMsOf(ended)));
  let difference = 0;
  let widest = 0;
  for (const { requests, chargedMs } of run.steps) {
    for (const [place, index] of requests.entries()) {
      const ms = chargedMs[place] ?? 0;
      difference += arrivals[index]?.tenant === 'greedy' ? ms : -ms;
    }
    widest = Math.max(widest, Math.abs(difference));
  }
  for (const tenant of ['greedy', 'modest']) {
    const isBacklogged = run.requests.some(
      ({ arrival, firstTokenAt }) => arrival.tenant === tenant && firstTokenAt === null,
    );
    if (!isBacklogged) throw new Error(`${tenant} had nothing waiting any more.`);
  }
  return widest / Math.max(...costs);
}

export interface BesideFigures {
  /** Interactive ITL p99 with the batch to that without. */
  readonly itlRatio: number;
  /** Tokens a second of everything, the same. */
  readonly throughputRatio: number;
}

/** A batch file beside interactive traffic at about half load. */
export function besideFigures(seed: number, spanMs = 120_000): BesideFigures {
  const people = interactive(0.5, spanMs, seed);
  const random = seededRandom(seed + 1000);
  const lines = Array.from(
    { length: 1500 },
    (): VirtualArrival => ({
      at: 0,
      promptTokens: 50 + Math.floor(random() * 500),
      completionTokens: 20 + Math.floor(random() * 60),
      serviceTier: 'flex',
      tenant: 'batch',
    }),
  );
  const alone = runOn(people, seed, spanMs);
  const beside = runOn([...lines, ...people], seed, spanMs);
  const p99 = (run: VirtualRun): number => quantile(readGaps(run), 0.99);
  const tokens = ({ requests }: VirtualRun): number =>
    requests.reduce((sum, { arrival, tokenTimes, firstTokenAt }) => {
      return sum + tokenTimes.length + (firstTokenAt === null ? 0 : arrival.promptTokens);
    }, 0);
  return { itlRatio: p99(beside) / p99(alone), throughputRatio: tokens(beside) / tokens(alone) };
}
