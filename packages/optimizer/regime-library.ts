/**
 * The regimes that were seen: which one windows belong to, what each looks like over all its visits, which are one and the
 * same, which are forgotten. Called by regime.ts at each confirmed change. Pure; at most MOST_REGIMES entries.
 */
import { FEATURES, type FeatureValues, featuresOf, SCALES } from './regime-features.ts';
import { distinctName, nameRegime } from './regime-name.ts';

export interface KnownRegime {
  readonly regimeId: string;
  readonly name: string;
  readonly mean: FeatureValues;
  /** Of its windows about that mean, swings of the day included. */
  readonly variance: readonly number[];
  readonly windowCount: number;
  readonly lastSeenAt: number;
  /** Of regimes that turned out to be this one: what was remembered under them belongs here. Newest last. */
  readonly formerIds: readonly string[];
}

/** The newest seen first. */
export type Library = readonly KnownRegime[];

export const MOST_REGIMES = 32;
const MOST_FORMER_IDS = 32;
export const UNSEEN_MS = 30 * 86_400_000;
/** A regime is recalled by windows that differ by less than this many tolerances in every feature... */
const RECALL_DISTANCE = 1.1;
/** ...and that much more where few windows make an unsure mean. */
const RECALL_PER_WINDOW = 1.2;
const MERGE_DISTANCE = 0.7;
/** A regime is what it was lately: half a day of windows of 15 s. */
const MOST_WINDOWS = 2880;

/** The nearest known regime, if it is near enough for so many windows; never the one that was just left. */
export function recall(
  library: Library,
  values: FeatureValues,
  windowCount: number,
  leftId: string,
): KnownRegime | null {
  let nearest: KnownRegime | null = null;
  let least = RECALL_DISTANCE + RECALL_PER_WINDOW / Math.max(1, windowCount);
  for (const known of library) {
    const distance = known.regimeId === leftId ? Number.POSITIVE_INFINITY : distanceTo(known, values);
    if (distance < least) {
      least = distance;
      nearest = known;
    }
  }
  return nearest;
}

/**
 * The largest difference of a feature, in what matters at all or what its windows scatter by: a regime has other arrivals at
 * another hour.
 */
export function distanceTo(known: KnownRegime, values: FeatureValues): number {
  return FEATURES.reduce((most, feature, index) => {
    const value = values[index] ?? null;
    const mean = known.mean[index] ?? null;
    if (value === null || mean === null) return most;
    const tolerance = Math.hypot(SCALES[feature].material, Math.sqrt(known.variance[index] ?? 0));
    return Math.max(most, Math.abs(value - mean) / tolerance);
  }, 0);
}

/** The regime that has this id, or into which the one that had it was merged; null where it was forgotten. */
export const livesOnAs = (library: Library, regimeId: string): KnownRegime | null =>
  library.find((known) => known.regimeId === regimeId || known.formerIds.includes(regimeId)) ?? null;

/** A regime that was never seen gets an id, and a name that no other has. */
export function enter(library: Library, values: FeatureValues, startedAt: number, now: number): KnownRegime {
  const base = `regime-${Math.round(startedAt).toString(36)}`;
  const isTaken = livesOnAs(library, base) !== null;
  return {
    regimeId: isTaken ? `${base}-${Math.round(now).toString(36)}` : base,
    name: distinctName(nameRegime(featuresOf(values)), values, library),
    mean: values,
    variance: FEATURES.map(() => 0),
    windowCount: 0,
    lastSeenAt: now,
    formerIds: [],
  };
}

/** One more window of a regime. */
export function learnRegime(
  known: KnownRegime,
  { values, startedAt }: { readonly values: FeatureValues; readonly startedAt: number },
): KnownRegime {
  const windowCount = known.windowCount + 1;
  const weight = 1 / Math.min(windowCount, MOST_WINDOWS);
  const mean = values.map((value, index) => {
    const before = known.mean[index] ?? null;
    return value === null || before === null ? (before ?? value) : before + weight * (value - before);
  });
  return {
    ...known,
    windowCount,
    mean,
    variance: known.variance.map((variance, index) => {
      const deviation = (values[index] ?? 0) - (mean[index] ?? 0);
      return values[index] === null ? variance : variance + weight * (deviation ** 2 - variance);
    }),
    lastSeenAt: Math.max(known.lastSeenAt, startedAt),
  };
}

/** The library with this regime as it is now; what is old or too much goes. */
export function keep(library: Library, regime: KnownRegime): Library {
  const others = library.filter(({ regimeId }) => regimeId !== regime.regimeId);
  return [regime, ...others]
    .filter(({ lastSeenAt }) => regime.lastSeenAt - lastSeenAt < UNSEEN_MS)
    .sort((a, b) => b.lastSeenAt - a.lastSeenAt)
    .slice(0, MOST_REGIMES);
}

/** A regime that is left, and another that it has come to equal, are one. The id that people have seen for longer lives on. */
export function mergeLeft(library: Library, leftId: string): Library {
  const left = library.find(({ regimeId }) => regimeId === leftId);
  if (left === undefined) return library;
  const twin = library.find(
    (known) => known.regimeId !== leftId && distanceTo(known, left.mean) < MERGE_DISTANCE,
  );
  if (twin === undefined) return library;
  const [kept, gone] = twin.windowCount >= left.windowCount ? [twin, left] : [left, twin];
  const windowCount = kept.windowCount + gone.windowCount;
  const share = gone.windowCount / Math.max(1, windowCount);
  const blend = (a: number | null, b: number | null): number | null =>
    a === null || b === null ? (a ?? b) : a + share * (b - a);
  const merged: KnownRegime = {
    ...kept,
    windowCount,
    mean: kept.mean.map((mean, index) => blend(mean, gone.mean[index] ?? null)),
    variance: kept.variance.map(
      (variance, index) => blend(variance, gone.variance[index] ?? null) ?? variance,
    ),
    lastSeenAt: Math.max(kept.lastSeenAt, gone.lastSeenAt),
    formerIds: [...kept.formerIds, ...gone.formerIds, gone.regimeId].slice(-MOST_FORMER_IDS),
  };
  return library.filter((known) => known !== kept && known !== gone).concat(merged);
}
