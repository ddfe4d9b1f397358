import { describe, expect, test } from 'vitest';
import { sha256Hashing } from './block-hashing.ts';
import { seededRandom } from './paper-device.ts';
import { cachedTokenCounts, chooseTarget, prefillMs, type RouteTarget } from './route.ts';
import { residualPlace, type StepTimeFit } from './step-time.ts';

const target = (more: Partial<RouteTarget> = {}): RouteTarget => ({
  pendingPrefillMs: 0,
  ownPrefillMs: 1000,
  cachedTokenCount: 0,
  openCount: 0,
  hasRoom: true,
  ...more,
});

describe('the chosen worker', () => {
  test('is the one with the prefix, though it has more to do', () => {
    const home = target({ cachedTokenCount: 900, ownPrefillMs: 100, openCount: 3, pendingPrefillMs: 2000 });
    expect(chooseTarget([target(), home, target()], 1000)).toBe(1);
  });

  test('is another once its queue costs more than 3 s beyond the least wait', () => {
    const home = target({ cachedTokenCount: 900, ownPrefillMs: 100, openCount: 3, pendingPrefillMs: 3901 });
    expect(chooseTarget([home, target()], 1000)).toBe(1);
    expect(chooseTarget([{ ...home, pendingPrefillMs: 3899 }, target()], 1000)).toBe(0);
  });

  test('is another where less than half of the prompt is cached and the others wait for nothing', () => {
    const some = target({ cachedTokenCount: 499, ownPrefillMs: 501, openCount: 1 });
    expect(chooseTarget([some, target()], 1000)).toBe(1);
    expect(chooseTarget([{ ...some, cachedTokenCount: 501, ownPrefillMs: 499 }, target()], 1000)).toBe(0);
  });

  test('of several with the prefix is the one with fewer sequences', () => {
    const has = { cachedTokenCount: 800, ownPrefillMs: 200 };
    expect(chooseTarget([target({ ...has, openCount: 3 }), target({ ...has, openCount: 1 })], 1000)).toBe(1);
  });

  test('without any prefix is where waiting times load is least', () => {
    const [short, few, both] = [
      target({ pendingPrefillMs: 100, openCount: 9 }),
      target({ pendingPrefillMs: 900, openCount: 4 }),
      target({ pendingPrefillMs: 500, openCount: 4 }),
    ];
    expect(chooseTarget([short, few, both], 1000)).toBe(2);
  });

  test('has room, where one has', () => {
    const full = target({ cachedTokenCount: 1000, ownPrefillMs: 1, hasRoom: false });
    expect(chooseTarget([full, target({ openCount: 8 })], 1001)).toBe(1);
    expect(chooseTarget([full, target({ openCount: 8, hasRoom: false })], 1001)).toBe(0);
  });

  test('of none is none', () => {
    expect(chooseTarget([], 10)).toBe(-1);
  });

  test('of a prompt that everybody begins with is not always the same: the load spreads', () => {
    const open = [0, 0, 0, 0];
    const holds = [true, false, false, false];
    for (let arrival = 0; arrival < 100; arrival += 1) {
      const chosen = chooseTarget(
        open.map((openCount, index) => {
          const cachedTokenCount = holds[index] === true ? 800 : 0;
          return target({ openCount, cachedTokenCount, ownPrefillMs: 1000 - cachedTokenCount });
        }),
        1000,
      );
      holds[chosen] = true;
      open[chosen] = (open[chosen] ?? 0) + 1;
    }
    expect(open.reduce((sum, count) => sum + count)).toBe(100);
    expect(Math.max(...open)).toBeLessThanOrEqual(38);
    expect(Math.min(...open)).toBeGreaterThan(10);
  });

  test('is never worse than the bound of what affinity may cost', () => {
    const random = seededRandom(7);
    for (let round = 0; round < 5000; round += 1) {
      const targets = Array.from({ length: 1 + Math.floor(random() * 6) }, () => {
        const cachedTokenCount = Math.floor(random() * 1001);
        return target({
          cachedTokenCount,
          ownPrefillMs: 1000 - cachedTokenCount,
          pendingPrefillMs: random() * 8000,
          openCount: Math.floor(random() * 30),
          hasRoom: random() < 0.7,
        });
      });
      const chosen = targets[chooseTarget(targets, 1001)] as RouteTarget;
      const wait = (each: RouteTarget) => each.pendingPrefillMs + each.ownPrefillMs;
      const fit = targets.filter(({ hasRoom }) => hasRoom === chosen.hasRoom);
      expect(chosen.hasRoom || targets.every(({ hasRoom }) => !hasRoom)).toBe(true);
      // Nobody with less waiting and fewer sequences was passed over by more than that.
      for (const other of fit) {
        if (other.openCount <= chosen.openCount) expect(wait(chosen) - wait(other)).toBeLessThan(3000);
      }
    }
  });
});

describe('what is cached', () => {
  const tokenIds = Array.from({ length: 41 }, (_, index) => index * 3);
  function hashes(numericsId: string, salt: string, blockCount: number, blockSize = 8): Set<string> {
    const found = new Set<string>();
    let parent = sha256Hashing.root(numericsId, salt);
    for (let index = 0; index < blockCount; index += 1) {
      parent = sha256Hashing.block(parent, tokenIds, index * blockSize, (index + 1) * blockSize);
      found.add(parent);
    }
    return found;
  }
  const view = (numericsId: string, blockHashes: Set<string>, blockSize = 8) => ({
    numericsId,
    blockSize,
    blockHashes,
  });

  test('is counted in whole blocks from the beginning, for each its own bits, salt and block size', () => {
    expect(
      cachedTokenCounts(tokenIds, 'salt', [
        view('a', hashes('a', 'salt', 3)),
        view('a', hashes('a', 'salt', 5)),
        view('a', hashes('a', 'other', 5)),
        view('b', hashes('a', 'salt', 5)),
        view('b', hashes('b', 'salt', 1)),
        view('a', hashes('a', 'salt', 2, 16), 16),
        view('a', new Set()),
      ]),
    ).toEqual([24, 40, 0, 0, 8, 32, 0]);
  });

  test('never has the last token, which is always computed', () => {
    const all = hashes('a', '', 5);
    expect(cachedTokenCounts(tokenIds.slice(0, 40), '', [view('a', all)])).toEqual([32]);
    expect(cachedTokenCounts([1], '', [view('a', all)])).toEqual([0]);
    expect(cachedTokenCounts([], '', [view('a', all)])).toEqual([0]);
  });

  test('has no hole: what follows a missing block is not counted', () => {
    const [first = '', , third = ''] = [...hashes('a', '', 3)];
    expect(cachedTokenCounts(tokenIds, '', [view('a', new Set([first, third]))])).toEqual([8]);
  });
});

test('a prefill costs tokens, chunks, and attention to what is before them', () => {
  const fit = {
    kneeTokens: 10,
    betaMs: {
      perStep: 7,
      perToken: 1,
      perTokenAboveKnee: 0.5,
      perDecodeSequence: 9,
      perPrefillSequence: 0.1,
      perDecodeContextToken: 9,
      perPrefillAttention: 0.01,
    },
  } as StepTimeFit;
  // Chunks of 16, 16 and 8 tokens onto 60 cached ones.
  expect(prefillMs(fit, 100, 60, 16)).toBeCloseTo(40 + 0.5 * 12 + 0.3 + 0.01 * 40 * 80, 9);
  expect(prefillMs(fit, 100, 100, 16)).toBe(0);

  // Where steps of such a chunk took 1.3 times the seven terms, so does the prefill; elsewhere it does not.
  const chunk = { tokenCount: 16, decodeSequenceCount: 0, prefillSequenceCount: 1, prefillTokenCount: 16 };
  const place = residualPlace({ ...chunk, decodeContextTokens: 0, prefillAttention: 16 * 68 });
  const residuals = {
    center: [0, 0, 0, 0, 0],
    scale: [1, 1, 1, 1, 1],
    places: place,
    weights: [1e6],
    logRatios: [Math.log(1.3)],
  };
  const corrected = { ...fit, residuals };
  expect(prefillMs(corrected, 100, 60, 16) / prefillMs(fit, 100, 60, 16)).toBeCloseTo(1.3, 4);
  const seldom = { ...residuals, weights: [1], places: place.map((value) => value + 50) };
  expect(prefillMs({ ...fit, residuals: seldom }, 100, 60, 16)).toBeCloseTo(prefillMs(fit, 100, 60, 16), 4);
});
