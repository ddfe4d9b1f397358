/**
 * How sure a replay is: the same window again and again with resampled sessions and a fit shaken within its own error.
 * Draws are shared between paths (and, for equal kernels, the fit's error too), so that what they have in common cancels
 * in the comparison. Called by propose.ts. Pure.
 */
import type { StepTimeFit } from '@variator/scheduler/step-time';
import { sessionUnits } from './closed-loop.ts';
import type { Estimate, MetricName, Outcome, PredictedMetric } from './proposal.ts';
import type { Arrival, Replay } from './replay.ts';
import { seededRandom } from './seeded-random.ts';

export const DRAW_COUNT = 8;
/** 90 % of Student's t with seven degrees of freedom. */
const STUDENT_90 = 1.895;
/** Error assumed of a fit that held nothing out, and the least and most that is believed of any. */
const UNKNOWN_ERROR = 0.15;
const ERROR_RANGE = [0.02, 0.3] as const;

export const METRICS: readonly MetricName[] = [
  'deviceMsPerRequest',
  'tokensPerSecond',
  'ttftP50Ms',
  'ttftP95Ms',
  'itlP50Ms',
  'itlP99Ms',
  'costUsdPerMillionTokens',
];

/**
 * Sessions drawn from the window, with replacement, each whole and where one of the window began: as many sessions, as fast,
 * otherwise mixed. Requests of none are drawn one by one. What would come after the window comes at its beginning, as the
 * rest of a session that was under way before: so the load stays level from one end to the other.
 */
export function resampled(arrivals: readonly Arrival[], seed: number): Arrival[] {
  const random = seededRandom(seed);
  const units = sessionUnits(arrivals).map((places) => places.flatMap((index) => arrivals[index] ?? []));
  const startedAt = arrivals[0]?.at ?? 0;
  const lastAt = arrivals.at(-1)?.at ?? startedAt;
  const spanMs = Math.max(1, (lastAt - startedAt) * (arrivals.length / Math.max(1, arrivals.length - 1)));
  const nameCounts = new Map<string, number>();
  for (const [first] of units) {
    if (first !== undefined) nameCounts.set(first.session, (nameCounts.get(first.session) ?? 0) + 1);
  }
  return units
    .flatMap((place, index) => {
      const unit = units[random.below(units.length)] ?? place;
      const shiftMs = (place[0]?.at ?? 0) - (unit[0]?.at ?? 0) - startedAt;
      // A name that several units have is no session's: what they share by it stays shared.
      const isSession = unit.every(({ session }) => session !== '' && nameCounts.get(session) === 1);
      return unit.map((arrival): Arrival => {
        const afterMs = arrival.at + shiftMs;
        const round = Math.floor(afterMs / spanMs);
        return {
          ...arrival,
          at: startedAt + afterMs - round * spanMs,
          session: isSession ? `${index} ${round}` : arrival.session,
        };
      });
    })
    .sort((a, b) => a.at - b.at);
}

/** The fit with each term off by its stated error; the same (seed, kernelsId) is always off in the same way. */
export function shaken(fit: StepTimeFit, seed: number): StepTimeFit {
  const error = Math.min(ERROR_RANGE[1], Math.max(ERROR_RANGE[0], fit.heldOutMape ?? UNKNOWN_ERROR));
  const random = seededRandom(seed ^ Number.parseInt(fit.kernelsId.slice(0, 7) || '0', 16));
  const { betaMs } = fit;
  const off = (beta: number): number => beta * Math.exp(error * random.normal());
  return {
    ...fit,
    betaMs: {
      perStep: off(betaMs.perStep),
      perToken: off(betaMs.perToken),
      perTokenAboveKnee: off(betaMs.perTokenAboveKnee),
      perDecodeSequence: off(betaMs.perDecodeSequence),
      perPrefillSequence: off(betaMs.perPrefillSequence),
      perDecodeContextToken: off(betaMs.perDecodeContextToken),
      perPrefillAttention: off(betaMs.perPrefillAttention),
    },
  };
}

/** Noise of single steps around the fit: its 90 % band as a standard deviation of the log. */
export const stepNoise = (fit: StepTimeFit): number => Math.min(0.3, (fit.logBand90 ?? 0.1) / 1.645);

/** Mean of the draws with a 90 % interval. */
export function estimate(values: readonly number[]): Estimate {
  const mean = values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  const variance =
    values.reduce((sum, value) => sum + (value - mean) ** 2, 0) / Math.max(1, values.length - 1);
  const halfWidth = STUDENT_90 * Math.sqrt(variance);
  return { value: mean, low: mean - halfWidth, high: mean + halfWidth };
}

/** Both paths' metrics over paired draws; a change is estimated on its logarithm, so that it stays above -100 %. */
export function comparedMetrics(
  incumbent: readonly Replay[],
  candidate: readonly Replay[],
): PredictedMetric[] {
  return METRICS.map((metric) => {
    const valuesOf = (replays: readonly Replay[]): number[] => replays.map(({ outcome }) => outcome[metric]);
    return {
      metric,
      now: notNegative(estimate(valuesOf(incumbent))),
      predicted: notNegative(estimate(valuesOf(candidate))),
      change: changeOf(
        incumbent.map(({ outcome }) => outcome),
        candidate.map(({ outcome }) => outcome),
        metric,
      ),
    };
  });
}

function changeOf(now: readonly Outcome[], then: readonly Outcome[], metric: MetricName): Estimate {
  const logs = now.flatMap((outcome, draw) => {
    const before = outcome[metric];
    const after = then[draw]?.[metric] ?? 0;
    return before > 0 && after > 0 ? [Math.log(after / before)] : [];
  });
  if (logs.length === 0) return { value: 0, low: 0, high: 0 };
  const { value, low, high } = estimate(logs);
  return { value: Math.expm1(value), low: Math.expm1(low), high: Math.expm1(high) };
}

const notNegative = ({ value, low, high }: Estimate): Estimate => ({ value, low: Math.max(0, low), high });
