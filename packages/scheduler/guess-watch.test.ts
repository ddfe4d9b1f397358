import { describe, expect, test } from 'vitest';
import { GuessWatch, noGuesses, stepAllowance } from './guess-watch.ts';
import { LookupIndex } from './lookup-index.ts';
import { recordedStreams, runStreams, type StreamShape } from './recorded-streams.fixture.ts';
import type { SchedulerOptions } from './scheduler.ts';
import type { EndedSequence, Sampling, SequenceSpec } from './sequence.ts';
import type { StepTimeFit } from './step-time.ts';

const options = (draftTokenCount: number, watchedShare = 1): SchedulerOptions => ({
  blockCount: 4096,
  blockSize: 16,
  maxModelLenTokens: 8192,
  limits: { tokenBudget: 512, maxRunningCount: 8, draftTokenCount },
  numericsId: 'n',
  watchedShare,
});
const shape: StreamShape = {
  count: 20,
  gapMs: 120,
  promptTokens: 120,
  answerTokens: 150,
  copiedShare: 0.6,
  copiedTokens: 25,
};
/** Tokens cost next to nothing beside the step: everything that is found is verified, and a step has time to watch everything. */
const generous = {
  kneeTokens: 10_000,
  betaMs: {
    perStep: 30,
    perToken: 1e-6,
    perTokenAboveKnee: 0,
    perDecodeSequence: 0,
    perPrefillSequence: 0,
    perDecodeContextToken: 0,
    perPrefillAttention: 0,
  },
} as StepTimeFit;

const byName = (ended: readonly EndedSequence[]): EndedSequence[] =>
  [...ended].sort((a, b) => Number(a.sequenceId) - Number(b.sequenceId));
const sumOf = (ended: readonly EndedSequence[], key: keyof typeof noGuesses): number =>
  ended.reduce((sum, { guesses }) => sum + guesses[key], 0);

function watched(tokenIds: readonly number[], promptTokenCount: number, sampling: Partial<Sampling> = {}) {
  const spec = { sequenceId: 's', sampling: { temperature: 0, topP: 1, topK: 0, seed: 0, ...sampling } };
  const watch = GuessWatch.for(spec as unknown as SequenceSpec, 1);
  for (let length = promptTokenCount + 1; length <= tokenIds.length; length += 1) {
    watch?.note(tokenIds.slice(0, length), stepAllowance(8));
  }
  return watch?.counts;
}

describe('what guesses would be worth', () => {
  test.each([
    ['nothing stood there before', [1, 2, 3, 4, 5, 6], 3, [2, 0, 0, 0]],
    ['a stretch is copied', [1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 5], 6, [4, 3, 3, 1]],
    ['its copy goes on otherwise', [1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 7], 6, [4, 3, 2, 1]],
    ['two stretches, a token of its own between', [1, 2, 3, 9, 1, 2, 3, 8, 1, 2, 3], 4, [6, 3, 2, 2]],
    ['one token', [1, 2, 3, 4], 3, [0, 0, 0, 0]],
  ])('%s', (_, tokenIds, promptTokenCount, [watchedCount, guessed, right, runs]) => {
    expect(watched(tokenIds, promptTokenCount)).toEqual({
      watchedTokenCount: watchedCount,
      guessedTokenCount: guessed,
      rightGuessCount: right,
      rightRunCount: runs,
    });
  });

  test.each<[string, Partial<Sampling>]>([
    ['penalties', { presencePenalty: 0.5 }],
    ['bans', { minTokens: 4 }],
    ['biases', { logitBias: [[1, 2]] }],
    ['log-probabilities', { logprobCount: 0 }],
  ])('%s: the sequence could not have speculated, and has no guesses', (_, sampling) => {
    const tokenIds = [1, 2, 3, 4, 5, 9, 1, 2, 3, 4, 5];
    expect(watched(tokenIds, 6, sampling)).toEqual({ ...noGuesses, watchedTokenCount: 4 });
  });

  test('a long prompt is taken in over several steps, and nothing is counted before', () => {
    const prompt = Array.from({ length: 500 }, (_, index) => index);
    const counts = watched([...prompt, ...prompt.slice(10, 20)], prompt.length);
    // Of nine tokens after the first: 138 taken in with each, so looked at from the fifth on.
    expect(counts?.watchedTokenCount).toBe(6);
    expect(counts?.rightGuessCount).toBe(6);
  });

  test('a step spends no more than its allowance, however many it watches', () => {
    const allowance = stepAllowance(8);
    const before = allowance.left;
    for (let index = 0; index < 200; index += 1) {
      const spec = { sequenceId: String(index), sampling: {} } as unknown as SequenceSpec;
      GuessWatch.for(spec, 1)?.note([1, 2, 3, 4, 5], allowance);
      expect(allowance.left).toBeGreaterThanOrEqual(0);
    }
    expect(allowance.left).toBeLessThan(before / 10);
  });

  test('a share of all sequences is watched, always the same ones', () => {
    const names = Array.from({ length: 2000 }, (_, index) => `chatcmpl-${index}`);
    const chosen = names.filter(
      (sequenceId) => GuessWatch.for({ sequenceId, sampling: {} } as unknown as SequenceSpec, 1 / 4) !== null,
    );
    expect(chosen.length).toBeGreaterThan(430);
    expect(chosen.length).toBeLessThan(570);
    const run = runStreams(recordedStreams(shape, 1), options(0, 0), null);
    expect(run.ended.every(({ guesses }) => guesses.watchedTokenCount === 0)).toBe(true);
  });
});

test('no more is watched at once than memory is meant for', () => {
  const stream = (promptTokens: number) => ({
    at: 0,
    promptTokenIds: Array.from({ length: promptTokens }, (_, index) => index),
    answerTokenIds: Array.from({ length: 20 }, (_, index) => index),
  });
  const wide = {
    ...options(0),
    maxModelLenTokens: 200_000,
    blockCount: 40_000,
    limits: { tokenBudget: 200_000, maxRunningCount: 8 },
  };
  const watchedCount = (longPrompts: number): number | undefined => {
    const streams = [...new Array<number>(longPrompts).fill(150_000), 10].map(stream);
    return byName(runStreams(streams, wide, null).ended).at(-1)?.guesses.watchedTokenCount;
  };
  expect(watchedCount(2)).toBeGreaterThan(10);
  expect(watchedCount(3)).toBe(0);
});

describe('on the same token streams', () => {
  test.each([1, 2, 3, 4])('the counts are the same whether the path speculates or not, seed %i', (seed) => {
    const streams = recordedStreams(shape, seed);
    const counts = (draftTokenCount: number) =>
      byName(runStreams(streams, options(draftTokenCount), generous).ended).map(({ guesses }) => guesses);
    const shadow = counts(0);
    expect(sumOf(runStreams(streams, options(0), generous).ended, 'rightGuessCount')).toBeGreaterThan(500);
    expect(counts(4)).toEqual(shadow);
    expect(counts(16)).toEqual(shadow);
  });

  test.each([1, 2, 3, 4])('what the shadow calls right is what the device accepts, seed %i', (seed) => {
    const streams = recordedStreams(shape, seed);
    const live = runStreams(streams, options(16), generous);
    expect(live.acceptedDraftCount).toBeGreaterThan(300);
    let agreeing = 0;
    for (const { stream, place, isRight } of live.verified) {
      agreeing += rightPlaces(streams[stream]).has(place) === isRight ? 1 : 0;
    }
    // A guess that goes on may come from another place than a fresh look-up there.
    expect(agreeing / live.verified.length).toBeGreaterThan(0.99);
  });
});

/** Places among an answer's tokens that a fresh look-up at each guesses right: the obvious way. */
function rightPlaces(stream: ReturnType<typeof recordedStreams>[number] | undefined): Set<number> {
  const { promptTokenIds = [], answerTokenIds = [] } = stream ?? {};
  const index = new LookupIndex();
  const tokenIds = [...promptTokenIds];
  const right = new Set<number>();
  for (const [place, tokenId] of answerTokenIds.entries()) {
    if (place > 0 && index.draft(tokenIds, 1)[0] === tokenId) right.add(place);
    tokenIds.push(tokenId);
  }
  return right;
}
