import type { BatchEntry } from '@variator/scheduler/batch';
import { expect, test } from 'vitest';
import { joinParts, type PartResult, stepParts } from './step-parts.ts';

const entry = (tokenCount: number, more: Partial<BatchEntry> = {}): BatchEntry => ({
  sequenceId: 's',
  tokenIds: Array.from({ length: tokenCount }, (_, at) => at),
  contextLength: 100,
  blockTable: [3, 4],
  isSampled: true,
  sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
  kind: 'prefill',
  ...more,
});
const scored = (tokenCount: number, more: Partial<BatchEntry> = {}): BatchEntry =>
  entry(tokenCount, {
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 0, logprobCount: 0 },
    scoredTokenIds: Array.from({ length: tokenCount }, (_, at) => (at === tokenCount - 1 ? -1 : at + 1)),
    ...more,
  });

test('a step within the limit is one part, as it was', () => {
  const entries = [entry(3), entry(500, { isSampled: false }), entry(4, { draftCount: 3 })];
  const parts = stepParts(entries, 5);
  expect(parts).toEqual([{ entries, sources: [0, 1, 2] }]);
  const result: PartResult = { sampledTokenIds: Int32Array.of(7, -1, 8), logprobs: null };
  expect(joinParts(3, parts, [result])).toBe(result);
});

test('more rows than the limit go in several parts, none with more, every entry once', () => {
  const entries = Array.from({ length: 7 }, () => entry(2, { draftCount: 1 }));
  const parts = stepParts(entries, 5);
  expect(parts.map(({ sources }) => sources)).toEqual([[0, 1], [2, 3], [4, 5], [6]]);
});

test('a chunk of which too many tokens are scored is cut, and its parts follow each other', () => {
  const entries = [entry(1), scored(8), entry(1)];
  const parts = stepParts(entries, 4);
  expect(parts.map(({ sources }) => sources)).toEqual([[0], [1], [1], [2]]);
  const cut = parts.flatMap((part) => part.entries.filter((_, at) => part.sources[at] === 1));
  expect(
    cut.map(({ contextLength, tokenIds, scoredTokenIds, isSampled }) => [
      contextLength,
      tokenIds,
      scoredTokenIds,
      isSampled,
    ]),
  ).toEqual([
    [100, [0, 1, 2, 3], [1, 2, 3, 4], false],
    [104, [4, 5, 6, 7], [5, 6, 7, -1], true],
  ]);
});

test('what the parts gave is joined by entry: tokens, what follows drafts, scores in order', () => {
  const entries = [entry(3, { draftCount: 2 }), scored(6), entry(1)];
  const parts = stepParts(entries, 3);
  const results = parts.map(
    ({ entries: own, sources }): PartResult => ({
      sampledTokenIds: Int32Array.from(own, ({ isSampled }, at) =>
        isSampled ? 10 + (sources[at] ?? 0) : -1,
      ),
      afterDraftTokenIds: own.map(({ draftCount }) => (draftCount ? Int32Array.of(1, 2) : null)),
      logprobs: own.map(({ scoredTokenIds = [], isSampled, sampling }) =>
        sampling.logprobCount === undefined
          ? []
          : [...scoredTokenIds.filter((id) => id >= 0), ...(isSampled ? [99] : [])].map((logprob) => ({
              logprob,
              top: [],
            })),
      ),
    }),
  );
  const joined = joinParts(3, parts, results);
  expect([...joined.sampledTokenIds]).toEqual([10, 11, 12]);
  expect(joined.afterDraftTokenIds).toEqual([Int32Array.of(1, 2), null, null]);
  expect(joined.logprobs?.map((list) => list.map(({ logprob }) => logprob))).toEqual([
    [],
    [1, 2, 3, 4, 5, 99],
    [],
  ]);
});
