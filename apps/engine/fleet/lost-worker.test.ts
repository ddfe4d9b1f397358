/** Real worker processes that are lost in the middle of streams: what their readers get must not show it. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import { type RealWorkers, readStream, realWorkers, specOf } from './real-workers.fixture.ts';

const prompts = Array.from({ length: 6 }, (_, at) =>
  Array.from({ length: 20 + 9 * at }, (_, index) => 10 + ((at * 37 + index * 13) % 900)),
);
/** Twice as many as any test acts at: what is left takes longer than a crowded machine is late. */
const TOKENS = 500;
/** Half greedy, half seeded. */
const specs = (name: string, maxTokens = TOKENS) =>
  prompts.map((prompt, at) =>
    specOf(
      `${name}-${at}`,
      prompt,
      maxTokens,
      at % 2 === 0 ? {} : { temperature: 0.9, topP: 0.95, seed: 77 + at },
    ),
  );

let one: RealWorkers;
let two: RealWorkers;
let undisturbed: number[][];
const indices = Array.from({ length: TOKENS }, (_, index) => index);

beforeAll(async () => {
  [one, two] = await Promise.all([realWorkers({ workerCount: 1 }), realWorkers({ workerCount: 2 })]);
  const streams = specs('undisturbed').map((spec) => readStream(one.fleet.submit(spec, 0)));
  undisturbed = (await Promise.all(streams)).map(({ tokenIds }) => tokenIds);
  expect(undisturbed.every(({ length }) => length === TOKENS)).toBe(true);
});
afterAll(async () => {
  await Promise.all([one?.close(), two?.close()]);
});

/** Opens all streams and acts once when the first has so many tokens. */
async function disturbed(workers: RealWorkers, name: string, afterTokens: number, act: () => void) {
  let hasActed = false;
  const streams = specs(name).map((spec) =>
    readStream(workers.fleet.submit(spec, 0), (count) => {
      if (hasActed || count < afterTokens) return;
      hasActed = true;
      act();
    }),
  );
  return Promise.all(streams);
}

it.each([1, 40, 250])('a worker killed at token %i: its successor goes on, greedy and seeded', async (at) => {
  const read = await disturbed(one, `killed-${at}`, at, () => one.kill(0));
  expect(read.map(({ tokenIds }) => tokenIds)).toEqual(undisturbed);
  for (const { indices: seen, ended, end } of read) {
    expect(seen).toEqual(indices);
    expect(end).toMatchObject({ isAccountFinal: false, isLost: false, resumeCount: 1, workerId: 'worker-0' });
    expect(ended).toMatchObject({
      reason: 'length',
      completionTokenCount: TOKENS,
      isMixedNumerics: false,
      sequenceId: expect.stringMatching(/^killed-\d+-\d$/),
    });
    expect(ended.account.decodeDeviceMs).toBeGreaterThan(0);
    expect(ended.account.recomputeDeviceMs).toBeGreaterThan(0);
  }
  expect(one.logged.join('\n')).toContain('worker-0 was lost');
});

it("a link cut while the worker lives: the same process goes on, and late words of the old link are nobody's", async () => {
  const pid = one.pid(0);
  let cuts = 0;
  const read = await disturbed(one, 'cut', 20, () => {
    one.cutLink(0);
    const again = setInterval(() => {
      cuts += 1;
      one.cutLink(0);
      // Once more, and a crowded machine that makes no token in between has a sequence that seems to kill its workers.
      if (cuts === 2) clearInterval(again);
    }, 150);
  });
  expect(read.map(({ tokenIds }) => tokenIds)).toEqual(undisturbed);
  expect(one.pid(0)).toBe(pid);
  expect(read.some(({ end }) => end.resumeCount > 0)).toBe(true);
});

it('of two workers one is killed: the other takes its sequences at once', async () => {
  const read = await disturbed(two, 'pair', 60, () => two.kill(0));
  expect(read.map(({ tokenIds }) => tokenIds)).toEqual(undisturbed);
  expect(read.map(({ end }) => end.resumeCount).sort()).toEqual([0, 0, 0, 1, 1, 1]);
  expect(new Set(read.map(({ end }) => end.workerId))).toEqual(new Set(['worker-1']));
  await two.joinedCount(2);
});

it('a worker that stands still is dropped after seconds of silence, its streams go on, and it is replaced', async () => {
  const pid = two.pid(0);
  const read = await disturbed(two, 'still', 60, () => two.kill(0, 'SIGSTOP'));
  expect(read.map(({ tokenIds }) => tokenIds)).toEqual(undisturbed);
  expect(two.logged.join('\n')).toContain('silent for too long');
  await two.joinedCount(2);
  expect(two.pid(0)).not.toBe(pid);
  expect(two.logged.join('\n')).toContain('has not moved for 5 s; killing it');
});

it('while no worker is there requests wait, cancel and stop end at once, and the fleet says that it is unready', async () => {
  const [prompt = []] = prompts;
  const open = one.fleet.submit(specOf('open', prompt, TOKENS), 0);
  const leaving = one.fleet.submit(specOf('leaving', prompt, TOKENS), 0);
  const reading = readStream(open);
  one.hold(0);
  await one.joinedCount(0);
  expect(one.fleet.canServe()).toBe(false);
  expect(one.fleet.canTake()).toBe(true);
  expect(one.fleet.unreadyReason()).toMatch(/the last worker was lost \d+ s ago/);
  const meanwhile = one.fleet.submit(specOf('meanwhile', prompt, TOKENS), 0);
  const stopped = one.fleet.submit(specOf('stopped', prompt, TOKENS), 0);
  stopped.stop();
  leaving.cancel();
  expect((await readStream(stopped)).end).toMatchObject({ isAccountFinal: true, ended: { reason: 'stop' } });
  expect((await readStream(leaving)).end.ended.reason).toBe('cancelled');
  one.mend(0);
  expect((await reading).tokenIds).toEqual(undisturbed[0]);
  const waited = await readStream(meanwhile);
  expect(waited.tokenIds).toEqual(undisturbed[0]);
  expect(waited.end).toMatchObject({ isAccountFinal: true, resumeCount: 0 });
});
