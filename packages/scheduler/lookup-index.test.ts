import { describe, expect, test } from 'vitest';
import { draftLength, expectedTokens } from './draft-length.ts';
import { LookupIndex } from './lookup-index.ts';
import { seededRandom } from './paper-device.ts';
import type { StepFeatures, StepTimeFit } from './step-time.ts';

describe('a lookup', () => {
  test.each([
    ['nothing agrees', [1, 2, 3, 4], 4, []],
    ['one token alone is no match', [5, 1, 7, 1], 4, []],
    ['two tokens agree: two are guessed', [1, 2, 3, 4, 5, 1, 2], 8, [3, 4]],
    ['as many as agree, and no more than asked', [1, 2, 3, 4, 5, 6, 1, 2, 3], 2, [4, 5]],
    ['the longer match before the newer', [9, 1, 2, 3, 7, 1, 2, 4, 9, 1, 2], 8, [3, 7, 1]],
    ['of equal ones the newer', [8, 1, 2, 3, 7, 1, 2, 4, 6, 1, 2], 8, [4, 6]],
    ['what repeats itself goes on', [4, 5, 4, 5, 4, 5], 6, [4, 5, 4, 5]],
    ['a single token', [1], 4, []],
    ['no tokens', [], 4, []],
  ])('%s', (_, tokenIds, most, drafts) => {
    expect(new LookupIndex().draft(tokenIds, most)).toEqual(drafts);
  });

  test('finds the same token by token as all at once, and as the slow search does', () => {
    const random = seededRandom(5);
    for (let round = 0; round < 30; round += 1) {
      const tokenIds: number[] = [];
      const grown = new LookupIndex();
      for (let length = 1; length <= 120; length += 1) {
        tokenIds.push(Math.floor(random() * 4));
        const drafts = grown.draft(tokenIds, 5);
        expect(new LookupIndex().draft(tokenIds, 5)).toEqual(drafts);
        expect(slowDraft(tokenIds, 5)).toEqual(drafts);
      }
    }
  });
});

/** Every earlier place, not only the newest of those whose last two tokens agree. */
function slowDraft(tokenIds: readonly number[], most: number): number[] {
  const end = tokenIds.length - 1;
  let best = -1;
  let bestMatch = 1;
  let looked = 0;
  for (let place = end - 1; place >= 1 && looked < 16; place -= 1) {
    let match = 0;
    while (match < 24 && match <= place && tokenIds[place - match] === tokenIds[end - match]) match += 1;
    if (match >= 2) looked += 1;
    if (match > bestMatch) {
      best = place;
      bestMatch = match;
    }
  }
  if (best < 0) return [];
  const all = [...tokenIds];
  for (let count = 0; count < Math.min(most, bestMatch); count += 1) all.push(all[best + 1 + count] ?? -1);
  return all.slice(tokenIds.length);
}

describe('how many drafts', () => {
  const fit = { kneeTokens: 8, betaMs: beta(10, 0.1, 1) } as StepTimeFit;
  function beta(perStep: number, perToken: number, perTokenAboveKnee: number): StepTimeFit['betaMs'] {
    const zeros = { perDecodeSequence: 0, perPrefillSequence: 0 };
    return {
      ...{ perStep, perToken, perTokenAboveKnee, perDecodeContextToken: 0, perPrefillAttention: 0 },
      ...zeros,
    };
  }
  const decoding = (count: number): StepFeatures => ({
    tokenCount: count,
    decodeSequenceCount: count,
    prefillSequenceCount: 0,
    prefillTokenCount: 0,
    decodeContextTokens: 100 * count,
    prefillAttention: 0,
  });
  const alike = (count: number, acceptance: number) =>
    Array.from({ length: count }, () => ({ tokenCount: 8, acceptance }));

  test('as many as are cheap: up to the knee where they are mostly right', () => {
    expect(draftLength(alike(1, 0.95), decoding(1), fit, 100)).toBeGreaterThanOrEqual(7);
    expect(draftLength(alike(1, 0.3), decoding(1), fit, 100)).toBeLessThan(5);
  });
  test('none where they are mostly wrong, or where a full batch pays for every token', () => {
    expect(draftLength(alike(1, 0.02), decoding(1), fit, 100)).toBe(0);
    expect(draftLength(alike(64, 0.3), decoding(64), fit, 1000)).toBe(0);
  });
  test('never more tokens than are left', () => {
    expect(draftLength(alike(4, 0.95), decoding(4), fit, 7)).toBe(1);
    expect(draftLength(alike(4, 0.95), decoding(4), fit, 3)).toBe(0);
  });
  test('without a fit a few, and none in large batches', () => {
    expect(draftLength(alike(1, 0.5), decoding(1), null, 100)).toBe(4);
    expect(draftLength(alike(32, 0.5), decoding(32), null, 1000)).toBe(0);
  });
  test('k drafts bring a + a^2 + ... + a^k tokens', () => {
    expect(expectedTokens(0.5, 3)).toBeCloseTo(0.875, 12);
    expect(expectedTokens(1, 4)).toBe(4);
  });
});
