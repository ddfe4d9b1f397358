import { diffPaths, type ExecutionPath, kernelsId } from '@variator/kernels/execution-path';
import type { GuessCounts } from '@variator/scheduler/sequence';
import { describe, expect, test } from 'vitest';
import { recordedStreams, runStreams, type StreamShape } from '../scheduler/recorded-streams.fixture.ts';
import { candidatePaths } from './candidate-paths.ts';
import { draftChoices, drawnGuesses, guessBasis, withGuesses } from './drawn-guesses.ts';
import { type ProposeQuestion, propose } from './propose.ts';
import { type Arrival, replay } from './replay.ts';
import { testEnvelope, testFit, testPath } from './test-world.ts';

const envelope = { ...testEnvelope, maxDraftTokenCount: 16 };
const relaxed = { ttftMs: 5000, itlMs: 400 };
/** Quotes what stood before: files, tool results, its own calls. */
const repetitive: StreamShape = {
  ...{ count: 40, gapMs: 900, promptTokens: 200, answerTokens: 120 },
  ...{ copiedShare: 0.75, copiedTokens: 30 },
};
const unrepetitive: StreamShape = { ...repetitive, copiedShare: 0 };

function streamsRun(shape: StreamShape, seed: number, draftTokenCount: number) {
  const streams = recordedStreams(shape, seed);
  const options = {
    blockCount: envelope.kvBlockCount,
    blockSize: envelope.kvBlockSize,
    maxModelLenTokens: envelope.maxModelLenTokens,
    limits: { ...testPath, draftTokenCount },
    numericsId: 'n',
    watchedShare: 1,
  };
  return { streams, run: runStreams(streams, options, testFit) };
}

/** As their rows would say. */
function recorded(shape: StreamShape, seed: number, watchedShare = 1): Arrival[] {
  const { streams, run } = streamsRun(shape, seed, 0);
  const guesses = new Map(run.ended.map((ended) => [ended.sequenceId, ended.guesses]));
  return streams
    .map(
      ({ at, promptTokenIds, answerTokenIds }, index): Arrival => ({
        at,
        promptTokenCount: promptTokenIds.length,
        cachedTokenCount: 0,
        completionTokenCount: answerTokenIds.length,
        session: `session-${index}`,
        tenant: '',
        serviceTier: 'default',
        objectives: relaxed,
        isStreamed: true,
        e2eMs: 1500,
        guesses: index < watchedShare * streams.length ? (guesses.get(String(index)) ?? null) : null,
      }),
    )
    .sort((a, b) => a.at - b.at);
}

const replayed = (arrivals: readonly Arrival[], draftTokenCount: number, seed = 1) =>
  replay({
    arrivals: withGuesses(arrivals),
    path: { ...testPath, draftTokenCount },
    fit: testFit,
    envelope,
    deviceUsdPerHour: 0.08,
    seed,
  });

const counts = (watched: number, guessed: number, right: number, runs: number): GuessCounts => ({
  watchedTokenCount: watched,
  guessedTokenCount: guessed,
  rightGuessCount: right,
  rightRunCount: runs,
});

describe('drawn guesses', () => {
  const spec = { sequenceId: '7', promptTokenIds: [1, 2, 3] } as never;
  const drawn = (one: GuessCounts | null, seed = 1) => drawnGuesses(() => one, seed)(spec);
  const tokens = (count: number): number[] => [1, 2, 3, ...new Array<number>(count).fill(0)];

  test('are right, wrong and there as often as counted', () => {
    const source = drawn(counts(1000, 600, 450, 50));
    let [guessed, right] = [0, 0];
    const PLACES = 20_000;
    const all = tokens(0);
    for (let place = 1; place <= PLACES; place += 1) {
      all.push(0);
      const [first] = source.draft(all, 1);
      guessed += first === undefined ? 0 : 1;
      right += first === 0 ? 1 : 0;
    }
    expect(guessed / PLACES).toBeCloseTo(0.6, 1);
    expect(right / PLACES).toBeCloseTo(0.45, 1);
  });

  test('are the same text whichever way a path walks through it', () => {
    const all = counts(100, 70, 60, 5);
    const [slow, fast] = [drawn(all), drawn(all)];
    const firsts = Array.from({ length: 200 }, (_, place) => slow.draft(tokens(place + 1), 1)[0]);
    for (let place = 1; place < 180; place += 1) {
      const drafts = fast.draft(tokens(place), 8);
      const wrong = drafts.findIndex((token) => token !== 0);
      const right = wrong < 0 ? drafts.length : wrong;
      expect(firsts.slice(place - 1, place - 1 + right)).toEqual(new Array(right).fill(0));
      if (wrong >= 0) expect(firsts[place - 1 + right]).not.toBe(0);
      place += right;
    }
    expect(
      drawn(all, 2)
        .draft(tokens(40), 8)
        .concat(drawn(all, 3).draft(tokens(41), 8)),
    ).not.toEqual(
      drawn(all, 4)
        .draft(tokens(40), 8)
        .concat(drawn(all, 5).draft(tokens(41), 8)),
    );
  });

  test('none before the first token, none where nothing is known or nothing was ever guessed', () => {
    expect(drawn(counts(10, 10, 10, 1)).draft(tokens(0), 8)).toEqual([]);
    expect(drawn(null).draft(tokens(5), 8)).toEqual([]);
    const never = drawn(counts(100, 0, 0, 0));
    for (let place = 1; place < 100; place += 1) expect(never.draft(tokens(place), 8)).toEqual([]);
  });
});

describe('what is known of guesses', () => {
  const arrivals = recorded(repetitive, 1);

  test('needs sixteen requests and five hundred tokens that were watched', () => {
    const some = (count: number) =>
      arrivals.map((arrival, index) => (index < count ? arrival : { ...arrival, guesses: null }));
    expect(guessBasis(some(15))).toBeNull();
    expect(draftChoices(some(15))).toEqual([]);
    expect(guessBasis(some(16))?.requestCount).toBe(16);
    expect(draftChoices(some(16))).toEqual([0, 4, 8]);
    expect(guessBasis(arrivals.map((one) => ({ ...one, guesses: counts(5, 5, 5, 1) })))).toBeNull();
    expect(withGuesses(some(15)).every(({ guesses }) => guesses === null)).toBe(true);
  });

  test('a request that was not watched has what another one had', () => {
    const filled = withGuesses(recorded(repetitive, 1, 0.5));
    expect(filled.every(({ guesses }) => guesses !== null && guesses !== undefined)).toBe(true);
    expect(filled).toEqual(withGuesses(recorded(repetitive, 1, 0.5)));
  });

  test('paths that speculate are asked about only where something is known and the device verifies', () => {
    const lengths = (known: readonly number[], of = envelope) => [
      ...new Set(candidatePaths(testPath, of, [], known).map((path) => path.draftTokenCount)),
    ];
    expect(lengths([])).toEqual([0]);
    expect(lengths([0, 4, 8]).sort()).toEqual([0, 4, 8]);
    expect(lengths([0, 4, 8], { ...envelope, maxDraftTokenCount: 4 }).sort()).toEqual([0, 4]);
    expect(lengths([0, 4, 8], testEnvelope)).toEqual([0]);
  });
});

describe('the twin beside the real scheduler on the recorded streams', () => {
  test.each([
    [1, 4],
    [2, 8],
    [3, 8],
    [4, 16],
  ])('foretells the gain of guesses, seed %i, at most %i', (seed, draftTokenCount) => {
    const arrivals = recorded(repetitive, seed);
    const real =
      streamsRun(repetitive, seed, draftTokenCount).run.deviceMs /
      streamsRun(repetitive, seed, 0).run.deviceMs;
    const twin = replayed(arrivals, draftTokenCount).deviceMs / replayed(arrivals, 0).deviceMs;
    expect(real).toBeLessThan(0.85);
    expect(Math.abs(Math.log(twin / real))).toBeLessThan(0.08);
  });

  test('where nothing repeats itself, none', () => {
    const arrivals = recorded(unrepetitive, 1);
    const ratio = replayed(arrivals, 8).deviceMs / replayed(arrivals, 0).deviceMs;
    expect(ratio).toBeGreaterThan(0.97);
    expect(ratio).toBeLessThan(1.03);
  });

  test('equal seeds give equal replays; wrong guesses are charged as waste, and nothing is lost', () => {
    const arrivals = recorded(repetitive, 5);
    expect(replayed(arrivals, 8)).toEqual(replayed(arrivals, 8));
    const { requests, unfinishedCount } = replayed(arrivals, 8);
    expect(unfinishedCount).toBe(0);
    for (const { arrival, gapsMs } of requests) expect(gapsMs).toHaveLength(arrival.completionTokenCount - 1);
  });
});

/** One setting away: so many are soon replayed. */
const nearest = (path: ExecutionPath, arrivals: readonly Arrival[]): ExecutionPath[] =>
  candidatePaths(path, envelope, [], draftChoices(arrivals)).filter(
    (candidate) => diffPaths(path, candidate).length === 1,
  );

function ask(arrivals: readonly Arrival[], more: Partial<ProposeQuestion> = {}) {
  return propose({
    workerId: 'w',
    incumbent: testPath,
    candidates: nearest(testPath, arrivals),
    fits: [{ ...testFit, kernelsId: kernelsId(testPath) }],
    arrivals,
    envelope,
    objectives: relaxed,
    deviceUsdPerHour: 0.08,
    evidence: {
      ...{ windowStartedAt: 0, windowEndedAt: 60_000, stepCount: 900 },
      ...{ regimeId: 'regime-1', regimeName: 'agents' },
    },
    tried: [],
    leastGain: 0.03,
    liveItlP99Ms: null,
    seed: 1,
    ...more,
  });
}

describe('a proposal', () => {
  test('turns speculation on where the text repeats itself, and says what it expects', () => {
    const { draft } = ask(recorded(repetitive, 1));
    expect(draft?.to.draftTokenCount).toBeGreaterThanOrEqual(4);
    expect(draft?.title).toMatch(/verify up to \d guesses a step/i);
    expect(draft?.reason).toMatch(/\d+ % of guessed tokens would have been right in the last \d+ requests/);
  });

  test('turns it on where a part was watched, too', () => {
    expect(ask(recorded(repetitive, 2, 0.4)).draft?.to.draftTokenCount).toBeGreaterThanOrEqual(4);
  });

  test('leaves it off where it does not, and where nobody watched', () => {
    expect(ask(recorded(unrepetitive, 1)).draft?.to.draftTokenCount ?? 0).toBe(0);
    const unknown = recorded(repetitive, 1).map((arrival) => ({ ...arrival, guesses: null }));
    expect(ask(unknown).draft?.to.draftTokenCount ?? 0).toBe(0);
  });

  test('leaves a path alone that speculates where there is nothing to guess: how many are verified is decided each step', () => {
    const arrivals = recorded(unrepetitive, 1);
    const speculating = { ...testPath, draftTokenCount: 8 };
    const asked = ask(arrivals, {
      incumbent: speculating,
      candidates: nearest(speculating, arrivals),
    });
    expect(asked.draft?.to.draftTokenCount ?? 8).toBe(8);
  });
});
