/** Two real workers: sessions spread over them, and each goes back to where its prefix is. */
import { afterAll, beforeAll, expect, it } from 'vitest';
import {
  type ReadStream,
  type RealWorkers,
  readStream,
  realWorkers,
  specOf,
} from './real-workers.fixture.ts';

let workers: RealWorkers;
beforeAll(async () => {
  workers = await realWorkers({ workerCount: 2 });
});
afterAll(async () => {
  await workers?.close();
});

const SESSIONS = 8;
const longPrompt = (session: number, length: number) =>
  Array.from({ length }, (_, index) => 10 + ((session * 131 + index * 17) % 900));
/** One turn of every session, all at once. */
const turn = (name: string, prompts: readonly (readonly number[])[]): Promise<ReadStream[]> =>
  Promise.all(
    prompts.map((prompt, session) =>
      readStream(workers.fleet.submit(specOf(`${name}-${session}`, prompt, 24), 0)),
    ),
  );
const workerIds = (turns: readonly ReadStream[]) => turns.map(({ end }) => end.workerId);
const cachedShares = (turns: readonly ReadStream[]) =>
  turns.map(({ ended }) => ended.cachedTokenCount / ended.promptTokenCount);

it('sessions spread over the workers, and their next turns find their prefix, also after the gateway lost sight of it', async () => {
  let prompts = Array.from({ length: SESSIONS }, (_, session) => longPrompt(session, 160));
  const first = await turn('first', prompts);
  const homes = workerIds(first);
  expect(homes.filter((id) => id === 'worker-0')).toHaveLength(SESSIONS / 2);
  expect(Math.max(...cachedShares(first))).toBe(0);

  const grown = (turns: readonly ReadStream[]) =>
    prompts.map((prompt, session) => [...prompt, ...(turns[session]?.tokenIds ?? []), 11, 12, 13]);
  prompts = grown(first);
  const second = await turn('second', prompts);
  expect(workerIds(second)).toEqual(homes);
  expect(Math.min(...cachedShares(second))).toBeGreaterThan(0.8);

  // Both dial again: to the fleet they are new, and their caches are what they were.
  const lastJoin = Math.max(...workers.fleet.workers().map(({ joinedAt }) => joinedAt));
  for (const index of [0, 1]) workers.cutLink(index);
  for (let waited = 0; waited < 10_000; waited += 20) {
    const joined = workers.fleet.workers();
    if (joined.length === 2 && joined.every(({ joinedAt }) => joinedAt > lastJoin)) break;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  prompts = grown(second);
  const third = await turn('third', prompts);
  expect(workerIds(third)).toEqual(homes);
  expect(Math.min(...cachedShares(third))).toBeGreaterThan(0.8);
});

it('a prompt that all sessions begin with is computed on both', async () => {
  const shared = longPrompt(99, 320);
  await turn('seed', [shared]);
  const prompts = Array.from({ length: 12 }, (_, session) => [...shared, ...longPrompt(200 + session, 32)]);
  const ids = workerIds(await turn('all', prompts));
  for (const id of ['worker-0', 'worker-1'])
    expect(ids.filter((each) => each === id).length).toBeGreaterThanOrEqual(3);
});
