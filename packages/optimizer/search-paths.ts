/**
 * The funnel of a search (algorithms.md f): what arithmetic rules out, successive halving of the rest over the twin with
 * common random numbers, and at most three finalists simulated again on fresh seeds. Called by propose.ts, which chooses.
 * The objective is the device ms per good request, among paths whose late gaps keep the ITL objective.
 */
import { diffPaths, type Envelope, type ExecutionPath } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { type FittedPath, feasiblePaths, MOST_LATE_GAPS } from './feasible-paths.ts';
import { quantile } from './quantile.ts';
import type { Arrival, Replay, ReplayQuestion } from './replay.ts';
import { DRAW_COUNT, resampled, shaken, stepNoise } from './replay-draws.ts';
import { halve, rungsOf } from './search-rungs.ts';

export interface SearchQuestion {
  readonly incumbent: FittedPath;
  readonly candidates: readonly FittedPath[];
  readonly arrivals: readonly Arrival[];
  readonly envelope: Envelope;
  readonly deviceUsdPerHour: number;
  readonly seed: number;
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
  const { finalists, lastRung, standingCount } = halve(
    feasible,
    rungs.length,
    run,
    (entries, rung) => {
      const reference = references[rung];
      if (reference === undefined) return [];
      return ranked(legalOf(entries, reference.replay), incumbent.path);
    },
    ({ path, fit }) => ({ path, fit }),
  );
  const arrivals = rungs.at(-1) ?? [];
  const last = references.at(-1) ?? run(incumbent, rungs.length - 1);
  const drawn = (entry: Replayed): Finalist => ({ ...entry, draws: draws(question, entry, arrivals) });
  return {
    incumbent: drawn(last),
    finalists: finalists.map(drawn),
    lastRung,
    arrivals,
    feasibleCount: feasible.length,
    standingCount,
  };
}

/** Paths that keep the ITL objective; where none does and the incumbent misses it too, those with no more late gaps. */
export function legalOf<Entry extends { readonly replay: Replay }>(
  entries: readonly Entry[],
  incumbent: Replay,
): Entry[] {
  const lossAllowed = incumbent.unfinishedCount + Math.ceil(0.01 * incumbent.requests.length);
  const complete = entries.filter(({ replay }) => replay.unfinishedCount <= lossAllowed);
  const keeping = complete.filter(({ replay }) => replay.lateGapShare <= MOST_LATE_GAPS);
  if (keeping.length > 0 || incumbent.lateGapShare <= MOST_LATE_GAPS) return keeping;
  return complete.filter(({ replay }) => replay.lateGapShare <= incumbent.lateGapShare);
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
  const ratios = requests.flatMap(({ arrival, gapsMs }) =>
    arrival.isStreamed && arrival.objectives.itlMs > 0
      ? gapsMs.map((gapMs) => gapMs / arrival.objectives.itlMs)
      : [],
  );
  return ratios.length === 0 ? Number.NEGATIVE_INFINITY : Math.log(quantile(ratios, 0.99));
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
