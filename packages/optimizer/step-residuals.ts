/**
 * What the seven terms leave, as a small table for the prediction: samples that lie together make one place with the median
 * of log(measured / seven terms). Called by fit-step-time.ts; packages/scheduler/step-time.ts reads the table. Pure.
 */
import {
  MOST_RESIDUALS,
  residualPlace,
  type StepTimeModel,
  type StepTimeResiduals,
  sevenTermsMs,
} from '@variator/scheduler/step-time';
import { weightedQuantile } from './quantile.ts';
import { type StepSample, trustIn } from './step-sample.ts';

/** Edge of the cells that make one place, in spreads of the samples. */
const CELL = 0.25;
/** Features that hardly vary are not stretched: a tenth in log(1 + x) is the least spread. */
const LEAST_SCALE = 0.1;

export function residualsOf(model: StepTimeModel, samples: readonly StepSample[]): StepTimeResiduals {
  const raw = samples.map(residualPlace);
  const dimensions = [0, 1, 2, 3, 4];
  const mean = (values: readonly number[]): number =>
    values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);
  const center = dimensions.map((k) => mean(raw.map((place) => place[k] ?? 0)));
  const scale = dimensions.map((k) =>
    Math.max(LEAST_SCALE, Math.sqrt(mean(raw.map((place) => ((place[k] ?? 0) - (center[k] ?? 0)) ** 2)))),
  );

  const cells = new Map<string, { place: number[]; value: number; weight: number }[]>();
  samples.forEach((sample, index) => {
    const place = dimensions.map((k) => ((raw[index]?.[k] ?? 0) - (center[k] ?? 0)) / (scale[k] ?? 1));
    const key = place.map((value) => Math.round(value / CELL)).join();
    const cell = cells.get(key) ?? [];
    if (cell.length === 0) cells.set(key, cell);
    const value = Math.log(sample.deviceMs / sevenTermsMs(model, sample));
    if (Number.isFinite(value)) cell.push({ place, value, weight: trustIn(sample) });
  });
  const known = [...cells]
    .map(([key, members]) => ({
      key,
      place: dimensions.map((k) => mean(members.map((member) => member.place[k] ?? 0))),
      weight: members.reduce((sum, member) => sum + member.weight, 0),
      logRatio: weightedQuantile(members, 0.5),
    }))
    .filter(({ logRatio }) => Number.isFinite(logRatio))
    // By weight, then by name: equal samples in any order make one table.
    .sort((a, b) => b.weight - a.weight || (a.key < b.key ? -1 : 1))
    .slice(0, MOST_RESIDUALS);
  const short = (value: number): number => Number(value.toPrecision(4));
  return {
    center: center.map(short),
    scale: scale.map(short),
    places: known.flatMap(({ place }) => place.map(short)),
    weights: known.map(({ weight }) => short(weight)),
    logRatios: known.map(({ logRatio }) => short(logRatio)),
  };
}
