/**
 * The funnel of a search (algorithms.md f): what arithmetic rules out, successive halving of the rest over the twin with
 * common random numbers, and at most three finalists simulated again on fresh seeds. Called by propose.ts, which chooses.
 * The objective is the device ms per good request, among paths whose late gaps keep the ITL objective.
 */
import { diffPaths, type Envelope, type ExecutionPath } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { type FittedPath, feasiblePaths } from './feasible-paths.ts';
import { type ItlKnowledge, missRisk } from './itl-belief.ts';
import { quantile, upperQuantile } from './quantile.ts';
import type { Arrival, Replay, ReplayQuestion } from './replay.ts';
import { DRAW_COUNT, resampled, shaken, stepNoise } from './replay-draws.ts';
import { halve, MOST_FINALISTS, rungsOf } from './search-rungs.ts';

export interface SearchQuestion {
  readonly incumbent: FittedPath;
  readonly candidates: readonly FittedPath[];
  /** Known from a canary: what runs like one of these is known, too. */
  readonly tested: readonly FittedPath[];
  readonly arrivals: readonly Arrival[];
  readonly envelope: Envelope;
  readonly deviceUsdPerHour: number;
  readonly seed: number;
  readonly itl: ItlKnowledge;
  /** The incumbent's ITL p99 as measured lately; null where nobody was served. */
  readonly liveItlP99Ms: number | null;
  readonly simulate: (question: ReplayQuestion) => Replay;
}

export interface Replayed extends FittedPath {
  readonly replay: Replay;
  /** Log of device ms per good request. */
  readonly logCost: number;
}

export interface Finalist extends Replayed {
  /** On fresh seeds: other requests of the window, the fit shaken within its error. */
  readonly draws: readonly Replay[];
}

export interface Found {
  readonly incumbent: Finalist;
  /** With what the incumbent's own gaps say. */
  readonly itl: ItlKnowledge;
  readonly finalists: readonly Finalist[];
  /** All that were replayed on the longest trace, the finalists among them. */
  readonly lastRung: readonly Replayed[];
  /** The longest trace. */
  readonly arrivals: readonly Arrival[];
  readonly feasibleCount: number;
  /** Of the feasible, those that keep the objective on the first trace. */
  readonly standingCount: number;
}

/** Costs nearer than this are equal, and TTFT decides; TTFTs nearer than theirs are, too. */
const COST_TIE = 0.01;
const TTFT_TIE = 0.15;
/** Of attainment: below it, costs no longer say anything. */
const LEAST_ATTAINMENT = 0.02;

export function searchPaths(question: SearchQuestion): Found {
  const { incumbent, candidates, envelope, seed } = question;
  const rungs = rungsOf(question.arrivals);
  const feasible = feasiblePaths(candidates, incumbent, question.arrivals, envelope);
  const run = (candidate: FittedPath, rung: number): Replayed =>
    replayed(candidate, simulated(question, candidate, rungs[rung] ?? [], seed));
  const references = rungs.map((_, rung) => run(incumbent, rung));
  const last = references.at(-1) ?? run(incumbent, rungs.length - 1);
  const itl = withLive(question, last.replay.outcome.itlP99Ms);
  const { lastRung, standingCount } = halve(
    feasible,
    rungs.length,
    run,
    (entries, rung) => {
      const reference = references[rung];
      if (reference === undefined) return [];
      const legal = legalOf(entries, reference, itl);
      const known = question.tested.map((path) => run(path, rung));
      const distinct = distinctOf(legal, [reference, ...known]);
      return ranked(distinct, incumbent.path);
    },
    ({ path, fit }) => ({ path, fit }),
  );
  const arrivals = rungs.at(-1) ?? [];
  const drawn = (entry: Replayed): Finalist => ({ ...entry, draws: draws(question, entry, arrivals) });
  const drawnIncumbent = drawn(last);
  const finalists: Finalist[] = [];
  for (const entry of lastRung.slice(0, MOST_DRAWN)) {
    if (finalists.length === MOST_FINALISTS) break;
    const finalist = drawn(entry);
    if (legalOf([finalist], drawnIncumbent, itl).length > 0) finalists.push(finalist);
  }
  return {
    incumbent: drawnIncumbent,
    itl,
    finalists,
    lastRung,
    arrivals,
    feasibleCount: feasible.length,
    standingCount,
  };
}

/** Of log(live / replayed): how far a window's p99 is from another's. */
const LIVE_SPREAD = 0.05;

function withLive({ itl, incumbent, liveItlP99Ms }: SearchQuestion, replayedMs: number): ItlKnowledge {
  if (liveItlP99Ms === null || liveItlP99Ms <= 0 || replayedMs <= 0) return itl;
  const live = {
    path: incumbent.path,
    mean: Math.log(liveItlP99Ms / replayedMs),
    variance: LIVE_SPREAD ** 2,
  };
  return { ...itl, errors: [...itl.errors, live] };
}

/** Paths that may keep the ITL objective; where none does and the incumbent misses it too, those with no more late gaps. */
export function legalOf<Entry extends Risked>(
  entries: readonly Entry[],
  incumbent: Risked,
  itl: ItlKnowledge,
): Entry[] {
  const { replay: now } = incumbent;
  const lossAllowed = now.unfinishedCount + Math.ceil(0.01 * now.requests.length);
  const complete = entries.filter(({ replay }) => replay.unfinishedCount <= lossAllowed);
  const keeping = complete.filter((entry) => riskOf(entry, itl) <= MOST_CANARY_RISK);
  if (keeping.length > 0 || riskOf(incumbent, itl) <= MOST_CANARY_RISK) return keeping;
  return complete.filter(({ replay }) => replay.lateGapShare <= now.lateGapShare);
}

/** A canary may find out what is as likely as not; live for good goes only what it showed to keep the objective. */
export const MOST_CANARY_RISK = 0.5;
/** Paths that are simulated again, for those that turn out too risky. */
const MOST_DRAWN = 6;

type Risked = Pick<Replayed, 'path' | 'replay'> & Partial<Pick<Finalist, 'draws'>>;

/** That a path's ITL p99 misses the objective, 0..1. */
export const riskOf = ({ path, replay, draws = [replay] }: Risked, itl: ItlKnowledge): number =>
  missRisk(path, draws.map(logGapOf), itl);

/** Limits that never bound a step make no other path: of those that ran alike, the first is kept; none that ran like the incumbent. */
function distinctOf(entries: readonly Replayed[], known: readonly Replayed[]): Replayed[] {
  const nameOf = ({ fit, replay: { deviceMs, stepCount } }: Replayed): string =>
    `${fit.kernelsId} ${deviceMs} ${stepCount}`;
  const seen = new Set(known.map(nameOf));
  return entries.filter((entry) => {
    const name = nameOf(entry);
    if (seen.has(name)) return false;
    seen.add(name);
    return true;
  });
}

/** Of all requests, those that ended within their objectives, as the gateway counts them; 0..1. */
export function attainmentOf({ requests }: Replay): number {
  const good = requests.filter(({ arrival, ttftMs, gapsMs, isFinished }) => {
    const { objectives } = arrival;
    if (!isFinished) return false;
    if (!arrival.isStreamed) return true;
    if (objectives.ttftMs > 0 && ttftMs > objectives.ttftMs) return false;
    return objectives.itlMs === 0 || gapsMs.length === 0 || quantile(gapsMs, 0.95) <= objectives.itlMs;
  });
  return good.length / Math.max(1, requests.length);
}

export const logAttainmentOf = (replay: Replay): number =>
  Math.log(Math.max(LEAST_ATTAINMENT, attainmentOf(replay)));

/** The 99th percentile of streamed gaps, each over its own objective, as a log; above 0 the objective is missed. */
export function logGapOf({ requests }: Replay): number {
  const read = requests.filter(({ arrival }) => arrival.isStreamed && arrival.objectives.itlMs > 0);
  const ratios = new Float64Array(read.reduce((sum, { gapsMs }) => sum + gapsMs.length, 0));
  let at = 0;
  for (const { arrival, gapsMs } of read) {
    for (const gapMs of gapsMs) {
      ratios[at] = gapMs / arrival.objectives.itlMs;
      at += 1;
    }
  }
  return ratios.length === 0 ? Number.NEGATIVE_INFINITY : Math.log(upperQuantile(ratios, 0.99));
}

function replayed({ path, fit }: FittedPath, replay: Replay): Replayed {
  const logCost = Math.log(Math.max(1e-9, replay.outcome.deviceMsPerRequest)) - logAttainmentOf(replay);
  return { path, fit, replay, logCost };
}

/** Cheapest first, a second change counted as a tie's worth of cost; among equals the shortest TTFT. */
function ranked(entries: readonly Replayed[], incumbent: ExecutionPath): Replayed[] {
  const keys = ({ path, logCost, replay: { outcome } }: Replayed): number[] => [
    Math.round(logCost / COST_TIE) + diffPaths(incumbent, path).length,
    Math.round(Math.log(Math.max(1e-9, outcome.ttftP95Ms)) / TTFT_TIE),
  ];
  return entries
    .map((entry) => ({ entry, keys: keys(entry) }))
    .sort(
      (a, b) => a.keys.map((key, i) => key - (b.keys[i] ?? 0)).find((difference) => difference !== 0) ?? 0,
    )
    .map(({ entry }) => entry);
}

function draws(question: SearchQuestion, { path, fit }: Replayed, arrivals: readonly Arrival[]): Replay[] {
  return Array.from({ length: DRAW_COUNT }, (_, draw) => {
    const seed = question.seed + 7919 * (draw + 1);
    const candidate = { path, fit: shaken(fit, seed) };
    return simulated(question, candidate, resampled(arrivals, seed), seed, stepNoise(fit));
  });
}

function simulated(
  { envelope, deviceUsdPerHour, simulate }: SearchQuestion,
  { path, fit }: { readonly path: ExecutionPath; readonly fit: StepTimeFit },
  arrivals: readonly Arrival[],
  seed: number,
  noise = 0,
): Replay {
  return simulate({ arrivals, path, fit, envelope, deviceUsdPerHour, seed, noise });
}
