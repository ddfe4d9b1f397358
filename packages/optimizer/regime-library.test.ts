import { expect, test } from 'vitest';
import { FEATURES, type FeatureName, type FeatureValues, SCALES } from './regime-features.ts';
import {
  enter,
  type KnownRegime,
  keep,
  type Library,
  learnRegime,
  livesOnAs,
  MOST_REGIMES,
  mergeLeft,
  recall,
  UNSEEN_MS,
} from './regime-library.ts';

/** So many times of what matters from nothing, in this feature. */
const at = (shift: number, shifted: FeatureName = 'meanLogOutput'): FeatureValues =>
  FEATURES.map((feature) => {
    const base = feature === 'meanHitShare' ? 0.1 : 5;
    return feature === shifted ? base + shift * SCALES[feature].material : base;
  });

/** A regime seen in so many windows, all of them alike. */
function seen(values: FeatureValues, startedAt: number, windowCount = 20): KnownRegime {
  let known = enter([], values, startedAt, startedAt);
  for (let window = 0; window < windowCount; window += 1) {
    known = learnRegime(known, { values, startedAt: startedAt + 15_000 * window });
  }
  return known;
}

test('windows near a known regime recall it, the nearest one; far from all, or only near the one just left, none', () => {
  const library: Library = [seen(at(0), 1), seen(at(1.5), 2), seen(at(8), 3)];
  const [first, second] = library;
  expect(recall(library, at(0.5), 15, '')).toBe(first);
  expect(recall(library, at(1.2), 15, '')).toBe(second);
  expect(recall(library, at(4), 15, '')).toBeNull();
  expect(recall(library, at(-0.4), 15, first?.regimeId ?? '')).toBeNull();
  // Other features say otherwise.
  expect(recall(library, at(2, 'meanHitShare'), 15, '')).toBeNull();
  // The mean of few windows is unsure.
  expect(recall(library, at(-1.2), 15, '')).toBeNull();
  expect(recall(library, at(-1.2), 4, '')).toBe(first);
});

test('a regime that is left and equals another is merged: the id seen for longer lives on and knows the other', () => {
  const old = seen(at(0), 1, 100);
  const brief = seen(at(0.4), 2, 25);
  const other = seen(at(9), 3);
  const merged = mergeLeft([old, brief, other], brief.regimeId);
  expect(merged).toHaveLength(2);
  const kept = livesOnAs(merged, brief.regimeId);
  expect(kept).toMatchObject({
    regimeId: old.regimeId,
    name: old.name,
    windowCount: 125,
    lastSeenAt: old.lastSeenAt,
  });
  expect(kept?.formerIds).toEqual([brief.regimeId]);
  const index = FEATURES.indexOf('meanLogOutput');
  expect(kept?.mean[index]).toBeCloseTo(5 + 0.2 * 0.4 * SCALES.meanLogOutput.material);
  // The same the other way round: it is the one with less of a past that goes, though it is not the one that was left.
  expect(livesOnAs(mergeLeft([old, brief, other], old.regimeId), brief.regimeId)?.regimeId).toBe(
    old.regimeId,
  );
  // And through two merges.
  const third = seen(at(0.1), 4, 300);
  const twice = mergeLeft([...merged, third], old.regimeId);
  expect(livesOnAs(twice, brief.regimeId)?.regimeId).toBe(third.regimeId);
  expect(livesOnAs(twice, old.regimeId)?.regimeId).toBe(third.regimeId);
  expect(livesOnAs(twice, 'never heard of')).toBeNull();
});

test('regimes that differ by what matters are not merged', () => {
  const library = [seen(at(0), 1), seen(at(1), 2)];
  for (const { regimeId } of library) expect(mergeLeft(library, regimeId)).toBe(library);
});

test('a regime is forgotten after 30 days unseen, and not before', () => {
  const old = seen(at(0), 0);
  const recent = seen(at(5), UNSEEN_MS / 2);
  const later = (now: number) => keep([old, recent], { ...seen(at(9), 7), lastSeenAt: now });
  expect(later(old.lastSeenAt + UNSEEN_MS - 1)).toHaveLength(3);
  expect(later(old.lastSeenAt + UNSEEN_MS).map(({ mean }) => mean)).toEqual([at(9), at(5)]);
});

test('beyond 32 regimes the one that was unseen for the longest time goes, and the state stays small', () => {
  let library: Library = [];
  for (let index = 0; index < 50; index += 1) {
    const values = at(10 * index);
    const entered = enter(library, values, index * 1000, index * 1000);
    library = keep(library, learnRegime(entered, { values, startedAt: index * 1000 }));
    expect(library.length).toBe(Math.min(index + 1, MOST_REGIMES));
    expect(library[0]?.regimeId).toBe(entered.regimeId);
  }
  expect(new Set(library.map(({ name }) => name)).size).toBe(MOST_REGIMES);
  expect(new Set(library.map(({ regimeId }) => regimeId)).size).toBe(MOST_REGIMES);
  expect(Math.min(...library.map(({ lastSeenAt }) => lastSeenAt))).toBe(18_000);
  expect(JSON.stringify(library).length).toBeLessThan(20_000);
});

test('an id is never given twice, not even one that went with a merge', () => {
  const old = seen(at(0), 1, 100);
  const brief = seen(at(0.2), 2, 5);
  const merged = mergeLeft([old, brief], brief.regimeId);
  expect(enter(merged, at(9), 2, 77).regimeId).toBe(`${brief.regimeId}-${(77).toString(36)}`);
});
