/** The twin against the replay, against itself without leaps, and against its own memory. */
import type { SequenceSpec } from '@variator/scheduler/sequence';
import { expect, test } from 'vitest';
import { collectGarbage } from '../../test/collect-garbage.ts';
import { openLoop, sessionsOf, type TwinSession } from './arrival-sources.ts';
import { DueQueue } from './due-queue.ts';
import { replay } from './replay.ts';
import { seededRandom } from './seeded-random.ts';
import { promptOf } from './synthetic-prompts.ts';
import { testEnvelope, testFit, testPath } from './test-world.ts';
import { type ArrivalSource, runTwin, type TwinRequest } from './twin.ts';
import { TwinRouter } from './twin-router.ts';
import { type TwinOutcome, TwinTotals } from './twin-totals.ts';
import { TwinWorker } from './twin-worker.ts';

const objectives = { ttftMs: 2000, itlMs: 100 };

const workerOf = (seed: number, noise = 0.05): TwinWorker =>
  new TwinWorker({
    ...{ envelope: testEnvelope, path: testPath, fit: testFit },
    ...{ seed, noise, betweenStepsMs: 0.3 },
  });

function specOf(index: number, promptTokenIds: number[], maxTokens: number): SequenceSpec {
  return {
    ...{ sequenceId: String(index), promptTokenIds, generatedTokenIds: [], maxTokens, stopTokenIds: [] },
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
    ...{ tenant: '', program: '', serviceTier: 'default', objectives, ageLimits: null, cacheSalt: '' },
  };
}

function* chats(count: number, perSecond: number, seed: number): Generator<TwinRequest> {
  const random = seededRandom(seed);
  let at = 0;
  for (let index = 0; index < count; index += 1) {
    at += (-1000 * Math.log(1 - random.uniform())) / perSecond;
    const shape = { promptTokenCount: 1 + random.below(60), session: '' };
    yield { at, spec: specOf(index, promptOf(shape, index, 0), 1 + random.below(30)) };
  }
}

function* sessions(count: number, seed: number): Generator<TwinSession> {
  const random = seededRandom(seed);
  let at = 0;
  let turnCount = 0;
  for (let session = 0; session < count; session += 1) {
    at += -200 * Math.log(1 - random.uniform());
    const turns = Array.from({ length: 1 + random.below(5) }, (_, turn) => {
      const index = turnCount;
      turnCount += 1;
      const shape = { promptTokenCount: 30 + 40 * turn, session: `s${session}` };
      const tokens = 1 + random.below(40);
      return {
        pauseMs: turn === 0 ? 0 : 5 + random.below(300),
        spec: () => specOf(index, promptOf(shape, index, shape.promptTokenCount), tokens),
      };
    });
    yield { startsAt: at, turns };
  }
}

function outcomesOf(source: ArrivalSource, workers: readonly TwinWorker[]): TwinOutcome[] {
  const outcomes: TwinOutcome[] = [];
  const observer = new TwinTotals((outcome) => outcomes.push(outcome));
  runTwin({ workers, source, observer, router: new TwinRouter(workers) });
  // Workers tell of an end when they have leaped to it, not in order of time.
  return outcomes.sort((a, b) => Number(a.spec.sequenceId) - Number(b.spec.sequenceId));
}

test('what is kept in bounded memory is what the replay of the same requests says exactly', () => {
  const requests = [...chats(400, 12, 3)];
  const totals = new TwinTotals();
  const worker = workerOf(5);
  runTwin({ workers: [worker], source: openLoop(requests.values()), observer: totals });
  const { outcome, deviceMs, stepCount } = replay({
    arrivals: requests.map(({ at, spec }) => ({
      ...{ at, session: '', tenant: '', serviceTier: 'default', objectives, isStreamed: true, e2eMs: 9e6 },
      promptTokenCount: spec.promptTokenIds.length,
      cachedTokenCount: 0,
      completionTokenCount: spec.maxTokens,
    })),
    ...{ path: testPath, fit: testFit, envelope: testEnvelope, deviceUsdPerHour: 1, seed: 5, noise: 0.05 },
  });
  expect(totals.finishedCount).toBe(400);
  expect(worker.deviceMs).toBeCloseTo(deviceMs, 6);
  expect(worker.stepCount).toBe(stepCount);
  const near = (value: number | undefined, exact: number): void => {
    expect(Math.abs((value ?? 0) / exact - 1)).toBeLessThan(0.02);
  };
  near(totals.itlMs.quantiles()?.p50, outcome.itlP50Ms);
  near(totals.itlMs.quantiles()?.p99, outcome.itlP99Ms);
  near(totals.ttftMs.quantiles()?.p50, outcome.ttftP50Ms);
  near(totals.ttftMs.quantiles()?.p95, outcome.ttftP95Ms);
});

test.each([
  ['that come by themselves', () => openLoop(chats(300, 40, 9))],
  ['of sessions that wait for their answers', () => sessionsOf(sessions(80, 9))],
])('requests %s fare on three workers as they do without leaps', (_, sourceOf) => {
  const leaping = [1, 2, 3].map((seed) => workerOf(seed));
  const stepping = [1, 2, 3].map((seed) => workerOf(seed));
  for (const { scheduler } of stepping) scheduler.leap = () => null;
  const outcomes = outcomesOf(sourceOf(), leaping);
  const plain = ({ ended: { account: _account, ...ended }, spec, ...outcome }: TwinOutcome): unknown => ({
    ...outcome,
    ...ended,
  });
  expect(outcomes.length).toBeGreaterThan(100);
  expect(outcomes.map(plain)).toEqual(outcomesOf(sourceOf(), stepping).map(plain));
  expect(leaping.map(({ stepCount }) => stepCount)).toEqual(stepping.map(({ stepCount }) => stepCount));
});

test('a turn of a session comes when the one before has ended and its pause has passed', () => {
  const pauses = [0, 70, 500];
  const spec = (turn: number) => specOf(turn, promptOf({ promptTokenCount: 20, session: '' }, turn, 0), 5);
  const session = {
    startsAt: 100,
    turns: pauses.map((pauseMs, turn) => ({ pauseMs, spec: () => spec(turn) })),
  };
  const outcomes = outcomesOf(sessionsOf([session].values()), [workerOf(1)]);
  expect(outcomes.map(({ arrivedAt }) => arrivedAt)).toEqual([
    100,
    ...outcomes.slice(0, 2).map(({ endedAt }, turn) => endedAt + (pauses[turn + 1] ?? 0)),
  ]);
});

test('what is due comes by time, and of equal times in order of entry', () => {
  const random = seededRandom(2);
  const queue = new DueQueue<number>();
  const waiting: { at: number; item: number }[] = [];
  for (let item = 0; item < 2000; item += 1) {
    if (random.uniform() < 0.6) {
      const at = random.below(40);
      queue.add(at, item);
      waiting.push({ at, item });
      waiting.sort((a, b) => a.at - b.at || a.item - b.item);
    } else {
      expect(queue.nextAt()).toBe(waiting[0]?.at ?? null);
      const taken = queue.take();
      expect(taken === null ? null : taken.item).toBe(waiting.shift()?.item ?? null);
    }
    expect(queue.size).toBe(waiting.length);
  }
});

test('thirty thousand requests need no more memory than three thousand', () => {
  const heapMb: number[] = [];
  const totals = new TwinTotals();
  function* weighed(): Generator<TwinRequest> {
    for (const request of chats(30_000, 20, 4)) {
      if (totals.requestCount > 0 && totals.requestCount % 3000 === 0) {
        collectGarbage();
        heapMb.push(process.memoryUsage().heapUsed / 1e6);
      }
      yield request;
    }
  }
  runTwin({ workers: [workerOf(1)], source: openLoop(weighed()), observer: totals });
  expect(totals.finishedCount).toBe(30_000);
  expect(totals.openCount).toBe(0);
  expect(heapMb.length).toBeGreaterThanOrEqual(9);
  // The first of them still holds what the tests before left to be collected.
  expect(Math.max(...heapMb.slice(2))).toBeLessThan(1.05 * (heapMb[1] ?? 0));
});
