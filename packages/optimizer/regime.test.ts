import { expect, test } from 'vitest';
import { quantile } from './quantile.ts';
import { advance, NO_REGIME, type RegimeDetection, type RegimeState } from './regime.ts';
import type { RegimeWindow } from './regime-features.ts';
import { type SeededRandom, seededRandom } from './seeded-random.ts';

const WINDOW_MS = 5000;

interface Request {
  readonly at: number;
  readonly promptTokens: number;
  readonly answerTokens: number;
}
type Traffic = (random: SeededRandom) => { gapMs: number; promptTokens: number; answerTokens: number };

/** Chats of 30 to 80 tokens, about one in 0.3 s. */
const chats: Traffic = (random) => ({
  gapMs: -300 * Math.log(1 - random.uniform()),
  promptTokens: 30 + random.below(51),
  answerTokens: 30 + random.below(40),
});
/** 600-token prompts with answers of eight. */
const flood: Traffic = (random) => ({
  gapMs: -400 * Math.log(1 - random.uniform()),
  promptTokens: 580 + random.below(40),
  answerTokens: 8,
});
const alternately: Traffic = (random) => (random.uniform() < 0.2 ? flood(random) : chats(random));

function requestsOf(traffic: Traffic, fromMs: number, toMs: number, random: SeededRandom): Request[] {
  const requests: Request[] = [];
  for (let at = fromMs; ; ) {
    const { gapMs, ...sizes } = traffic(random);
    at += gapMs;
    if (at >= toMs) return requests;
    requests.push({ at, ...sizes });
  }
}

const mean = (values: readonly number[]): number =>
  values.reduce((sum, value) => sum + value, 0) / Math.max(1, values.length);

function windowOf(requests: readonly Request[], startedAt: number): RegimeWindow {
  const logs = requests.map((request) => Math.log(request.promptTokens));
  const gaps = requests.slice(1).map((request, index) => request.at - (requests[index]?.at ?? 0));
  const gapMean = mean(gaps);
  const cv2 = mean(gaps.map((gap) => gap * gap)) / gapMean ** 2 - 1;
  return {
    startedAt,
    windowMs: WINDOW_MS,
    requestCount: requests.length,
    sessionCount: requests.length,
    features: {
      meanLogPrompt: mean(logs),
      p90LogPrompt: quantile(logs, 0.9),
      meanLog1pUncached: mean(requests.map((request) => Math.log1p(request.promptTokens))),
      meanLogOutput: mean(requests.map((request) => Math.log(request.answerTokens))),
      logArrivalRate: Math.log((requests.length * 1000) / WINDOW_MS),
      logSessionRate: Math.log((requests.length * 1000) / WINDOW_MS),
      logCv2: gaps.length < 2 ? null : Math.log(Math.max(cv2, 1e-3)),
      meanHitShare: 0,
    },
  };
}

/** Plays phases of so many windows each; returns every mark with the index of the window that raised it. */
function play(phases: readonly (readonly [Traffic, number])[], seed: number) {
  const random = seededRandom(seed);
  let state: RegimeState = NO_REGIME;
  let index = 0;
  const marks: (RegimeDetection & { readonly windowIndex: number })[] = [];
  for (const [traffic, windowCount] of phases) {
    const startedAt = index * WINDOW_MS;
    const requests = requestsOf(traffic, startedAt, startedAt + windowCount * WINDOW_MS, random);
    for (let window = 0; window < windowCount; window += 1, index += 1) {
      const from = index * WINDOW_MS;
      const inside = requests.filter((request) => request.at >= from && request.at < from + WINDOW_MS);
      const step = advance(state, windowOf(inside, from));
      state = step.state;
      const settled = step.marks.filter(({ kind }) => kind === 'first' || kind === 'confirmed');
      marks.push(...settled.map((mark) => ({ ...mark, windowIndex: index })));
    }
  }
  return marks;
}

test('a change from chats to a flood and back is confirmed within five windows of each, in 50 runs', () => {
  for (let seed = 0; seed < 50; seed += 1) {
    const marks = play(
      [
        [chats, 12],
        [flood, 8],
        [chats, 8],
      ],
      seed,
    );
    expect(marks.map((mark) => mark.name.split(',')[0])).toEqual([
      'short chats',
      'long prompts',
      'short chats',
    ]);
    const [, toFlood, toChats] = marks;
    expect((toFlood?.windowIndex ?? 99) - 12).toBeLessThan(5);
    expect((toChats?.windowIndex ?? 99) - 20).toBeLessThan(5);
    expect(Math.abs((toFlood?.startedAt ?? 0) - 12 * WINDOW_MS)).toBeLessThanOrEqual(WINDOW_MS);
  }
});

test('chats with long prompts among them, then a flood, and back: three regimes in at least 45 of 50 runs', () => {
  const runs = Array.from({ length: 50 }, (_, seed) =>
    play(
      [
        [alternately, 12],
        [flood, 10],
        [alternately, 10],
      ],
      100 + seed,
    ),
  );
  const found = runs.filter((marks) => marks.length === 3 && marks[1]?.name.startsWith('long prompts'));
  expect(found.length).toBeGreaterThanOrEqual(45);
});

test.each([
  ['chats', chats, 250],
  ['a flood', flood, 250],
  ['chats with a fifth of long prompts', alternately, 250],
])('stationary %s are one regime', (_, traffic, windowCount) => {
  const falseMarks = Array.from({ length: 6 }, (_, seed) => play([[traffic, windowCount]], seed).length - 1);
  // 6 runs of 21 minutes: at most one false mark in 2 hours.
  expect(falseMarks.reduce((sum, count) => sum + count, 0)).toBeLessThanOrEqual(1);
});

test('silence is no evidence: a window without requests changes nothing but how far was looked, and raises no mark', () => {
  const random = seededRandom(1);
  const busy = windowOf(requestsOf(chats, 0, WINDOW_MS, random), 0);
  const { state } = advance(NO_REGIME, busy);
  const silent = { ...busy, startedAt: WINDOW_MS, requestCount: 0 };
  expect(advance(state, silent)).toEqual({ state: { ...state, seenUntil: 2 * WINDOW_MS }, marks: [] });
});

/** Windows that are all alike but for what is stated. */
function feed(state: RegimeState, windowCount: number, answerFactor: number, random: SeededRandom) {
  const kinds: string[] = [];
  let next = state;
  for (let window = 0; window < windowCount; window += 1) {
    const startedAt = next.seenUntil;
    const jitter = (): number => 0.05 * random.normal();
    const step = advance(next, {
      startedAt,
      windowMs: WINDOW_MS,
      requestCount: 100,
      sessionCount: 60,
      features: {
        meanLogPrompt: 5 + jitter(),
        p90LogPrompt: 6 + jitter(),
        meanLog1pUncached: 5 + jitter(),
        meanLogOutput: 4 + Math.log(answerFactor) + jitter(),
        logArrivalRate: 3 + jitter(),
        logSessionRate: 2.5 + jitter(),
        logCv2: jitter(),
        meanHitShare: 0.2,
      },
    });
    next = step.state;
    kinds.push(...step.marks.map(({ kind }) => kind));
  }
  return { state: next, kinds };
}

test('a short spell of longer answers is suspected, holds proposals back while it lasts, and is refuted', () => {
  const random = seededRandom(3);
  const quiet = feed(NO_REGIME, 120, 1, random);
  expect(quiet.kinds).toEqual(['first']);
  const spell = feed(quiet.state, 3, 1.6, random);
  expect(spell.kinds).toEqual(['suspected']);
  expect(spell.state.isSuspected).toBe(true);
  // Nothing is learned of the regime that it may be.
  expect(spell.state.library).toHaveLength(1);
  expect(spell.state.current).toEqual(quiet.state.current);
  const over = feed(spell.state, 30, 1, random);
  expect(over.kinds).toEqual(['refuted']);
  expect(over.state.isSuspected).toBe(false);
  expect(over.state.current).toEqual(quiet.state.current);
});

test('the same spell that lasts is confirmed, from its first window on, and the regime before it recalled after it', () => {
  const random = seededRandom(4);
  const quiet = feed(NO_REGIME, 120, 1, random);
  const spell = feed(quiet.state, 12, 1.6, random);
  expect(spell.kinds).toEqual(['suspected', 'confirmed']);
  expect(spell.state.isSuspected).toBe(false);
  expect(spell.state.current).toMatchObject({ startedAt: 120 * WINDOW_MS, risenFeature: 'meanLogOutput' });
  const back = feed(spell.state, 40, 1, random);
  expect(back.state.current).toMatchObject({ regimeId: quiet.state.current?.regimeId, isRecalled: true });
  expect(back.state.library).toHaveLength(2);
});

test('a shift that is sure but does not matter is absorbed', () => {
  const random = seededRandom(5);
  const quiet = feed(NO_REGIME, 120, 1, random);
  const { kinds, state } = feed(quiet.state, 300, 1.1, random);
  expect(kinds).toEqual([]);
  expect(state.reference.mean[3]).toBeCloseTo(4 + Math.log(1.1), 1);
});
