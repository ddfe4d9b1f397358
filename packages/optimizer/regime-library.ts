/**
 * The regimes that were seen: which one windows belong to, what each looks like over all its visits, which are one and the
 * same, which are forgotten. Called by regime.ts at each confirmed change. Pure; at most MOST_REGIMES entries.
 */
import { FEATURES, featuresOf, SCALES } from './regime-features.ts';
import { nameRegime } from './regime-name.ts';
import { mahalanobis, type Reference } from './regime-reference.ts';

type Values = readonly (number | null)[];

export interface KnownRegime {
  readonly regimeId: string;
  readonly name: string;
  readonly mean: Values;
  /** Of its windows about that mean, swings of the day included. */
  readonly variance: readonly number[];
  readonly windowCount: number;
  readonly requestCount: number;
  readonly lastSeenAt: number;
}

export type Library = readonly KnownRegime[];

export const MOST_REGIMES = 32;
const UNSEEN_MS = 30 * 86_400_000;
/** Squared distances, in spreads of one window. The mean of few windows is unsure: they may be further away. */
const RECALL_DISTANCE = 6;
const RECALL_PER_WINDOW = 8;
const MERGE_DISTANCE = 1.3;
/** A regime is what it was lately: half a day of windows of 15 s. */
const MOST_WINDOWS = 2880;

/** The nearest known regime, if it is near enough for the mean of so many windows; never the one that was just left. */
export function recall(
  library: Library,
  values: Values,
  windowCount: number,
  pooled: Reference,
  leftId: string,
): KnownRegime | null {
  let nearest: KnownRegime | null = null;
  let least = RECALL_DISTANCE + RECALL_PER_WINDOW / Math.max(1, windowCount);
  for (const known of library) {
    const distance = known.regimeId === leftId ? Number.POSITIVE_INFINITY : distanceTo(known, values, pooled);
    if (distance < least) {
      least = distance;
      nearest = known;
    }
  }
  return nearest;
}

/** In spreads of one window, never less than what matters at all: a regime has other arrivals at another hour. */
function distanceTo(known: KnownRegime, values: Values, pooled: Reference): number {
  const z = FEATURES.map((feature, index) => {
    const value = values[index] ?? null;
    const mean = known.mean[index] ?? null;
    if (value === null || mean === null) return 0;
    const spread = Math.sqrt(known.variance[index] ?? 0);
    return (value - mean) / Math.max(SCALES[feature].material, spread);
  });
  return mahalanobis(pooled, z);
}

/** The windows are what the regime has been like on the whole, if not what it was like in the last half hour. */
export function isStill(library: Library, regimeId: string, values: Values, pooled: Reference): boolean {
  const known = library.find((regime) => regime.regimeId === regimeId);
  return known !== undefined && distanceTo(known, values, pooled) < MERGE_DISTANCE;
}

/** A regime that was never seen gets an id, and a name that no other has. */
export function enter(library: Library, values: Values, startedAt: number, now: number): KnownRegime {
  const features = featuresOf(values);
  const plain = nameRegime(features);
  const others = library.filter(({ name }) => name === plain || name.startsWith(`${plain} (`));
  const name = others.length === 0 ? plain : distinctName(plain, values, others);
  const base = `regime-${Math.round(startedAt).toString(36)}`;
  const taken = library.some(({ regimeId }) => regimeId === base);
  return {
    regimeId: taken ? `${base}-${Math.round(now).toString(36)}` : base,
    name,
    mean: values,
    variance: FEATURES.map(() => 0),
    windowCount: 0,
    requestCount: 0,
    lastSeenAt: now,
  };
}

const MORE_AND_LESS: Readonly<Record<(typeof FEATURES)[number], readonly [more: string, less: string]>> = {
  meanLogPrompt: ['longer', 'shorter'],
  p90LogPrompt: ['more long ones', 'fewer long ones'],
  meanLog1pUncached: ['less cached', 'more cached'],
  meanLogOutput: ['longer answers', 'shorter answers'],
  logArrivalRate: ['busier', 'quieter'],
  logCv2: ['burstier', 'steadier'],
  meanHitShare: ['more cached', 'less cached'],
};

/** By what it differs most from the regime that had the name first. */
function distinctName(plain: string, values: Values, others: Library): string {
  const first = others[0];
  let most = 0;
  let word = '2';
  FEATURES.forEach((feature, index) => {
    const shift = ((values[index] ?? 0) - (first?.mean[index] ?? 0)) / SCALES[feature].material;
    if (Math.abs(shift) <= most) return;
    most = Math.abs(shift);
    word = MORE_AND_LESS[feature][shift > 0 ? 0 : 1];
  });
  const named = `${plain} (${word})`;
  if (others.every(({ name }) => name !== named)) return named;
  let number = 2;
  while (others.some(({ name }) => name === `${plain} (${word} ${number})`)) number += 1;
  return `${plain} (${word} ${number})`;
}

/** One more quiet window of a regime. */
export function learnRegime(
  known: KnownRegime,
  values: Values,
  requestCount: number,
  now: number,
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
    requestCount: known.requestCount + weight * (requestCount - known.requestCount),
    lastSeenAt: now,
  };
}

/** The library with this regime as it is now: what equals it is merged into the older one, what is old or too much goes. */
export function keep(library: Library, regime: KnownRegime, now: number): Library {
  const others = library.filter(({ regimeId }) => regimeId !== regime.regimeId);
  return [...others, regime]
    .filter(({ lastSeenAt }) => now - lastSeenAt < UNSEEN_MS)
    .sort((a, b) => b.lastSeenAt - a.lastSeenAt)
    .slice(0, MOST_REGIMES);
}

/** A regime that is left, and an older one that it has come to equal, are one: the older one's id and name stay. */
export function mergeLeft(library: Library, leftId: string, pooled: Reference): Library {
  const left = library.find(({ regimeId }) => regimeId === leftId);
  if (left === undefined) return library;
  const twin = library.find(
    (known) => known.regimeId !== leftId && distanceTo(known, left.mean, pooled) < MERGE_DISTANCE,
  );
  if (twin === undefined) return library;
  // The one with more windows has been what people know.
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
  };
  return library.filter((known) => known !== kept && known !== gone).concat(merged);
}
