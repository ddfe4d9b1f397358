/**
 * The funnel of a search (algorithms.md f): what arithmetic rules out, successive halving of the rest over the twin with
 * common random numbers, and at most three finalists simulated again on fresh seeds. Called by propose.ts, which chooses.
 * The objective is the device ms per good request, among paths whose late gaps keep the ITL objective.
 */
import { diffPaths, type Envelope, type ExecutionPath } from '@variator/kernels/execution-path';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { type FittedPath, feasiblePaths, MOST_LATE_GAPS } from './feasible-paths.ts';
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
  /** Of log(replayed / realised). */
  readonly spread: number;
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
  const { incumbent, candidates, envelope, seed, spread } = question;
  const rungs = rungsOf(question.arrivals);
  const feasible = feasiblePaths(candidates, incumbent, question.arrivals, envelope);
  const run = (candidate: FittedPath, rung: number): Replayed =>
    replayed(candidate, simulated(question, candidate, rungs[rung] ?? [], seed));
  const references = rungs.map((_, rung) => run(incumbent, rung));
  const { lastRung, standingCount } = halve(
    feasible,
    rungs.length,
    run,
    (entries, rung) => {
      const reference = references[rung];
      if (reference === undefined) return [];
      const legal = legalOf(entries, reference.replay);
      const isLast = rung === rungs.length - 1;
      // Three finalists are few: none of them for a path that is barred in the end.
      const safe = isLast ? legal.filter((entry) => isSafe(entry, reference, spread)) : legal;
      const known = question.tested.map((path) => run(path, rung));
      const distinct = distinctOf(safe, [reference, ...known]);
      return ranked(distinct, incumbent.path);
    },
    ({ path, fit }) => ({ path, fit }),
  );
  const arrivals = rungs.at(-1) ?? [];
  const last = references.at(-1) ?? run(incumbent, rungs.length - 1);
  const drawn = (entry: Replayed): Finalist => ({ ...entry, draws: draws(question, entry, arrivals) });
  const drawnIncumbent = drawn(last);
  const finalists: Finalist[] = [];
  for (const entry of lastRung.slice(0, MOST_DRAWN)) {
    if (finalists.length === MOST_FINALISTS) break;
    const finalist = drawn(entry);
    if (isSafe(finalist, drawnIncumbent, spread)) finalists.push(finalist);
  }
  return {
    incumbent: drawnIncumbent,
    finalists,
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

const MOST_VIOLATION_RISK = 0.05;
/** Paths that are simulated again, for those that turn out too risky. */
const MOST_DRAWN = 6;

/** Paths of one worker err together: what is no riskier than the path that is live and keeps the objective, is allowed. */
export function isSafe(entry: Risked, incumbent: Risked, spread: number): boolean {
  const riskNow = violationRisk(incumbent, spread);
  if (riskNow > 0.5) return true;
  return violationRisk(entry, spread) <= Math.max(MOST_VIOLATION_RISK, riskNow);
}

type Risked = Pick<Finalist, 'replay'> & Partial<Pick<Finalist, 'draws'>>;

/**
 * That its ITL p99 is above the objective. Replays have been off by `spread`, in which the fit's error is counted; where the
 * draws scatter more, by that.
 */
export function violationRisk({ replay, draws = [replay] }: Risked, spread: number): number {
  const logs = draws.map(logGapOf);
  if (!logs.every(Number.isFinite)) return logs.some((log) => log > 0) ? 1 : 0;
  return normalTail(-mean(logs) / Math.max(spread, Math.sqrt(varianceOf(logs))));
}

/** P(Z > z), Abramowitz and Stegun 26.2.17. */
function normalTail(z: number): number {
  if (z < 0) return 1 - normalTail(-z);
  const t = 1 / (1 + 0.2316419 * z);
  const series =
    t * (0.31938153 + t * (-0.356563782 + t * (1.781477937 + t * (-1.821255978 + t * 1.330274429))));
  return (series * Math.exp((-z * z) / 2)) / Math.sqrt(2 * Math.PI);
}

export const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

export function varianceOf(values: readonly number[]): number {
  const middle = mean(values);
  return values.reduce((sum, value) => sum + (value - middle) ** 2, 0) / Math.max(1, values.length - 1);
}

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
