/**
 * A proposal's title and reason in words, with the numbers that decided. Called by propose.ts; decides nothing itself.
 */
import { catalogue } from '@variator/kernels/catalogue';
import { type ExecutionPath, numericsId, type PathChange } from '@variator/kernels/execution-path';
import { SAFE } from './arm-posterior.ts';
import type { Aim, EarlierGaps } from './canary-judge.ts';
import type { GuessBasis } from './drawn-guesses.ts';
import { type Estimate, logCostForGoodAnswers, type MetricName, type PredictedMetric } from './proposal.ts';

export interface ProposalFacts {
  readonly aim: Aim;
  /** The live path misses the ITL objective and this one keeps it. */
  readonly isObjectiveRegained: boolean;
  /** Log(answers within their objectives, proposed / incumbent) as replayed, where they are what is aimed at; else 0. */
  readonly goodAnswers: number;
  readonly from: ExecutionPath;
  readonly to: ExecutionPath;
  readonly changes: readonly PathChange[];
  readonly metrics: readonly PredictedMetric[];
  readonly itlObjectiveMs: number;
  /** That it misses the ITL objective, 0..1. */
  readonly missRisk: number;
  readonly requestCount: number;
  readonly windowMs: number;
  readonly regimeName: string;
  /** Held-out error of the least sure fit used, 0..1; null where one has held nothing out. */
  readonly fitError: number | null;
  readonly tokensPerStepNow: number;
  readonly tokensPerStepThen: number;
  readonly legalCount: number;
  readonly candidateCount: number;
  /** Null where nobody knows what guesses would be worth. */
  readonly guesses: GuessBasis | null;
  /** Promoted in an earlier visit of this regime. */
  readonly isRecalled: boolean;
  /** Of its gaps, where it was live in this regime before. */
  readonly earlierGaps: EarlierGaps | null;
  /** Of device ms per request as replayed, before it was corrected; -0.1 is ten percent fewer. */
  readonly replayedChange: number;
  /** Replays were off by so much in past canaries, as a log ratio. */
  readonly replaySpread: number;
  /** Canaries of this regime that compared something. */
  readonly canaryCount: number;
}

/** A gain below this is not called one. */
const UNSURE_GAIN = 0.005;
/** A change below this is called none. */
const UNCHANGED = 0.05;

export function proposalTitle(facts: ProposalFacts): string {
  return `${capitalised(facts.changes.map(changeInWords).join(' and '))}: ${effectInWords(facts)}`;
}

export function proposalReason(facts: ProposalFacts): string {
  const cost = metricOf(facts.metrics, 'deviceMsPerRequest');
  const itl = metricOf(facts.metrics, 'itlP99Ms');
  const ttft = metricOf(facts.metrics, 'ttftP95Ms');
  const regime = facts.regimeName === '' ? '' : ` (${facts.regimeName})`;
  const error =
    facts.fitError === null
      ? 'step times that have not been held to a test yet'
      : `step times that are off by ${percent(facts.fitError)} % on steps held out`;
  const sentences = [
    `${facts.requestCount} requests of the last ${inDuration(facts.windowMs)}${regime} were replayed through the scheduler with ${error}.`,
    `A request costs ${inMs(cost.now.value)} of device time under the live path and ${inMs(cost.predicted.value)} under this one.`,
    guessesInWords(facts),
    stepsInWords(facts),
    `ITL p99 goes from ${inMs(itl.now.value)} to ${inMs(itl.predicted.value)}${objectiveInWords(facts, itl.predicted.value)}; TTFT p95 from ${inMs(ttft.now.value)} to ${inMs(ttft.predicted.value)}.`,
    aimInWords(facts),
    riskInWords(facts),
    earlierGapsInWords(facts),
    numericsInWords(facts),
    correctionInWords(facts, cost.change.value),
    facts.isRecalled
      ? 'It was the best known path when this workload was last here.'
      : `${facts.legalCount} of the ${facts.candidateCount} paths within reach keep the objective; this one is among the best of them.`,
  ];
  return sentences.filter((sentence) => sentence !== '').join(' ');
}

function changeInWords(change: PathChange): string {
  const isMore = Number(change.to) > Number(change.from);
  switch (change.setting) {
    case 'tokenBudget':
      return `${isMore ? 'raise' : 'lower'} the token budget to ${change.to}`;
    case 'maxRunningCount':
      return `${isMore ? 'raise' : 'lower'} the largest running batch to ${change.to}`;
    case 'threadCount':
      return `compute with ${change.to} threads`;
    case 'linear':
      return `run the linear layers with ${change.to}`;
    case 'attention':
      return `run attention with ${change.to}`;
    case 'draftTokenCount':
      return change.to === 0 ? 'stop speculating' : `verify up to ${change.to} guesses a step`;
    case 'tiles':
      return `run the kernels with ${change.to} tiles`;
    case 'splitTokens':
      return `attend in splits of ${change.to} positions`;
  }
}

function effectInWords(facts: ProposalFacts): string {
  const cost = metricOf(facts.metrics, 'deviceMsPerRequest').change;
  const ttft = metricOf(facts.metrics, 'ttftP95Ms').change;
  if (facts.aim !== 'itl') {
    const isMore = cost.value > UNSURE_GAIN;
    const gain =
      Math.abs(cost.value) < UNSURE_GAIN || (isMore && facts.aim === 'deviceMs')
        ? `about as many device ms per request (${signed(cost.low)} to ${signed(cost.high)} %)`
        : `${percent(Math.abs(cost.value))} % ${isMore ? 'more' : 'fewer'} device ms per request (${isMore ? rangeOf(cost.low, cost.high) : rangeOf(-cost.high, -cost.low)})`;
    const goal =
      facts.aim === 'goodAnswers'
        ? `${goodAnswersInWords(facts)}, ${gain}`
        : `${gain}${-cost.value < UNSURE_GAIN ? ', worth finding out' : ''}`;
    const regained = facts.isObjectiveRegained ? ', ITL p99 within its objective again' : '';
    return `${goal}${regained}, TTFT p95 ${longerOrShorter(ttft)}`;
  }
  const itl = metricOf(facts.metrics, 'itlP99Ms');
  const gaps = `ITL p99 ${inMs(itl.predicted.value)} instead of ${inMs(itl.now.value)} (objective ${inMs(facts.itlObjectiveMs)})`;
  if (Math.abs(cost.value) < 0.005) return `${gaps}, device ms per request unchanged`;
  return `${gaps}, ${percent(Math.abs(cost.value))} % ${cost.value > 0 ? 'more' : 'fewer'} device ms per request`;
}

const rangeOf = (low: number, high: number): string => `${percent(low)} to ${percent(high)} %`;

function longerOrShorter(change: Estimate): string {
  if (Math.abs(change.value) < UNCHANGED) return 'unchanged';
  return `${percent(Math.abs(change.value))} % ${change.value > 0 ? 'longer' : 'shorter'}`;
}

function stepsInWords({ tokensPerStepNow: now, tokensPerStepThen: then }: ProposalFacts): string {
  const ratio = then / Math.max(0.001, now);
  if (ratio > 0.95 && ratio < 1.05) return '';
  const consequence =
    ratio > 1
      ? 'so the weights are read less often per token'
      : 'so nobody waits as long for a step to end, and the weights are read more often per token';
  return `A step computes ${then.toFixed(1)} tokens on average instead of ${now.toFixed(1)}, ${consequence}.`;
}

function guessesInWords({ changes, guesses }: ProposalFacts): string {
  if (guesses === null || changes.every(({ setting }) => setting !== 'draftTokenCount')) return '';
  const { requestCount, guessedShare, rightShare } = guesses;
  return `${percent(rightShare)} % of guessed tokens would have been right in the last ${requestCount} requests that were watched, and ${percent(guessedShare)} % of their tokens had a guess; answers stay the same to the token.`;
}

function objectiveInWords(facts: ProposalFacts, predictedMs: number): string {
  const objective = inMs(facts.itlObjectiveMs);
  if (facts.isObjectiveRegained) return `, and the objective of ${objective}, missed now, is kept`;
  return predictedMs <= facts.itlObjectiveMs ? `, within the objective of ${objective}` : '';
}

function goodAnswersInWords({ goodAnswers }: ProposalFacts): string {
  const ratio = Math.exp(goodAnswers);
  const more = ratio >= 2 ? `${ratio.toFixed(1)} times as many` : `${percent(ratio - 1)} % more`;
  return `${more} answers within their objectives`;
}

function aimInWords(facts: ProposalFacts): string {
  if (facts.aim !== 'goodAnswers') return '';
  const most = Math.expm1(logCostForGoodAnswers(facts.goodAnswers));
  return `Replayed, ${goodAnswersInWords(facts)}; a canary's blocks are too short to count them, so it goes live once it surely costs no more than ${percent(most)} % more device ms for the same work.`;
}

function riskInWords({ missRisk }: ProposalFacts): string {
  if (missRisk <= SAFE) return '';
  return `With ${percent(missRisk)} % it misses that objective: the canary finds out, and it goes live only where it surely keeps it.`;
}

function earlierGapsInWords({ earlierGaps }: ProposalFacts): string {
  if (earlierGaps === null) return '';
  const { count, lateCount, canaryCount, objectiveMs } = earlierGaps;
  const canaries = canaryCount === 1 ? 'a canary' : `${canaryCount} canaries`;
  return `In ${canaries} of this workload ${percent(lateCount / count)} % of its gaps were longer than ${inMs(objectiveMs)}: the next one counts on from there.`;
}

/** Where the prediction is not what the replay said. */
function correctionInWords(facts: ProposalFacts, believed: number): string {
  if (facts.aim === 'itl') return '';
  const off = `replays have been off by ${percent(facts.replaySpread)} %`;
  const canaries =
    facts.canaryCount === 0
      ? ''
      : `, and ${facts.canaryCount === 1 ? 'one canary' : `${facts.canaryCount} canaries`} of this workload measured`;
  if (Math.abs(believed - facts.replayedChange) < 0.005) return `The interval counts that ${off}${canaries}.`;
  return `The replay alone said ${percent(-facts.replayedChange)} % fewer device ms; the best of many looks better than it is, ${off}${canaries}.`;
}

function numericsInWords({ from, to }: ProposalFacts): string {
  if (numericsId(from) === numericsId(to)) return '';
  const tolerance = catalogue.find((variant) => variant.id === to.linear)?.tolerance ?? '';
  return `Its numerics differ from the live path's${tolerance === '' ? '' : ` (${tolerance})`}; the equality check holds it to that first.`;
}

function metricOf(metrics: readonly PredictedMetric[], name: MetricName): PredictedMetric {
  const zero = { value: 0, low: 0, high: 0 };
  return (
    metrics.find(({ metric }) => metric === name) ?? {
      metric: name,
      now: zero,
      predicted: zero,
      change: zero,
    }
  );
}

const capitalised = (text: string): string => text.charAt(0).toUpperCase() + text.slice(1);

function percent(share: number): string {
  const value = share * 100;
  return value.toFixed(Math.abs(value) >= 10 ? 0 : 1).replace('-', '−');
}

const signed = (share: number): string => `${share > 0 ? '+' : ''}${percent(share)}`;

function inMs(ms: number): string {
  if (ms >= 1000) return `${(ms / 1000).toFixed(2)} s`;
  return `${ms >= 100 ? ms.toFixed(0) : ms.toPrecision(2)} ms`;
}

function inDuration(ms: number): string {
  const seconds = Math.round(ms / 1000);
  return seconds < 120 ? `${seconds} s` : `${Math.round(seconds / 60)} min`;
}
