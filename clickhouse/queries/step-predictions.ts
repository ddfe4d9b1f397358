/**
 * Served steps of some kernels beside what the fit of their moment foretold: how far off it was, over all steps of a span,
 * and a fair sample of them to be drawn. Asked by the API's fits.predictions. Whatever is drawn, the figures are of all.
 * A step is in the band where |log(measured / predicted)| is within it; undisturbed as the fit has it.
 */
import { z } from 'zod';
import type { TelemetryClient } from '../client.ts';
import { figure, inSpan, type Span, spanParams } from './measures.ts';

export interface PredictionsQuestion extends Span {
  readonly deviceKind: string;
  readonly modelHash: string;
  readonly kernelsId: string;
  /** Half-width of the band of log(measured / predicted); null where the fit has none yet. */
  readonly logBand90: number | null;
  /** Foreign CPU share up to which a step counts as undisturbed. */
  readonly quietShare: number;
}

export const MOST_DRAWN_STEPS = 1500;

const stepsAsked = `
FROM steps
WHERE deviceKind = {deviceKind:String} AND modelHash = {modelHash:String} AND kernelsId = {kernelsId:String}
  AND ${inSpan('startedAt')} AND kind = 'serve' AND predictedMs > 0 AND deviceMs > 0`;

const isQuiet = 'foreignCpuShare <= {quietShare:Float64}';
/** No band leaves nothing to be within: what depends on it is NULL then. */
const isInside = 'abs(log(deviceMs / predictedMs)) <= {logBand90:Float64}';
const hasBand = '{logBand90:Float64} >= 0';
const mapeIf = (of: string): string => `if(countIf(${of}) = 0, NULL, avgIf(errorShare, ${of}))`;

const errorsSql = `
SELECT
  multiIf(grouping(isPrefilling) = 0, if(isPrefilling, 'with prefill', 'decode only'),
    grouping(isQuiet) = 0, if(isQuiet, 'undisturbed', 'disturbed'), 'all') AS steps,
  count() AS stepCount,
  if(${hasBand}, avg(isInside), NULL) AS insideShare,
  avg(errorShare) AS mape,
  ${mapeIf(`${hasBand} AND isInside`)} AS insideMape,
  ${mapeIf(`${hasBand} AND NOT isInside`)} AS outsideMape
FROM (
  SELECT prefillTokenCount > 0 AS isPrefilling, ${isQuiet} AS isQuiet, ${isInside} AS isInside,
    abs(predictedMs / deviceMs - 1) AS errorShare
  ${stepsAsked}
)
GROUP BY GROUPING SETS ((isPrefilling), (isQuiet), ())
HAVING steps != 'disturbed' AND stepCount > 0
ORDER BY indexOf(['decode only', 'with prefill', 'all', 'undisturbed'], steps)`;

const errorsRow = z.object({
  /** Which of them the figures are of; `undisturbed` by other processes, as the fit has it. */
  steps: z.enum(['decode only', 'with prefill', 'all', 'undisturbed']),
  stepCount: z.number(),
  /** 0..1. */
  insideShare: figure,
  /** Mean of |predicted / measured - 1|, of those in the band and those outside. */
  mape: z.number(),
  insideMape: figure,
  outsideMape: figure,
});
export type PredictionErrors = z.infer<typeof errorsRow>;

const drawnSql = `
SELECT predictedMs, deviceMs, tokenCount, decodeSequenceCount, prefillTokenCount, ${isQuiet} AS isQuiet
${stepsAsked}
ORDER BY cityHash64(bootId, stepId)
LIMIT ${MOST_DRAWN_STEPS}`;

const drawnRow = z.object({
  predictedMs: z.number(),
  deviceMs: z.number(),
  tokenCount: z.number(),
  decodeSequenceCount: z.number(),
  prefillTokenCount: z.number(),
  isQuiet: z.number().transform((flag) => flag === 1),
});
export type PredictedStep = z.infer<typeof drawnRow>;

export interface StepPredictions {
  /** One entry of each that there are some of; none without a step that was foretold. */
  readonly errors: readonly PredictionErrors[];
  /** Which they are depends on their ids alone. */
  readonly drawn: readonly PredictedStep[];
}

export async function stepPredictions(
  client: TelemetryClient,
  question: PredictionsQuestion,
): Promise<StepPredictions> {
  const { deviceKind, modelHash, kernelsId, quietShare, logBand90 } = question;
  const params = { ...spanParams(question), deviceKind, modelHash, kernelsId, quietShare };
  const [errors, drawn] = await Promise.all([
    client.query(errorsSql, { ...params, logBand90: logBand90 ?? -1 }, errorsRow),
    client.query(drawnSql, params, drawnRow),
  ]);
  return { errors, drawn };
}
