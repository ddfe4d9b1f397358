/**
 * Paths whose attention keeps keys and values in another format, switched live on the real CPU device: no stream is
 * dropped, blocks carry over where the new pool has them, and the others are computed again.
 */
import { fileURLToPath } from 'node:url';
import { type ExecutionPath, kvBlockCountOf, namedPaths, pathId } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { expect, it } from 'vitest';
import type { WorkerFrame } from '../fleet/link-frames.ts';
import { cpuDevice } from './cpu-device.ts';
import { StepLoop } from './step-loop.ts';

const story = fileURLToPath(new URL('../../../models/stories-5m', import.meta.url));
const SEQUENCES = 12;
const ANSWER_TOKENS = 120;
/** A pool that float32 fills: what bf16 and int8 hold besides must go when it comes back. */
const options = {
  threadCount: 2,
  kvMemoryBytes: 10 * 1024 ** 2,
  maxModelLenTokens: 256,
  isa: 'all',
  packedWeightsDir: null,
} as const;

/** Runs `SEQUENCES` answers, switching to the next path whenever one more `every`-th token has come. */
async function run(paths: readonly ExecutionPath[], every: number) {
  const device = cpuDevice(await loadModel(story), options);
  const [first] = paths;
  if (first === undefined) throw new Error('no path');
  await device.prepare(first);
  const tokens = new Map<string, number[]>();
  const ended: Extract<WorkerFrame, { type: 'ended' }>['ended'][] = [];
  const changedTo: string[] = [];
  const rows: Extract<WorkerFrame, { type: 'stepRows' }>['rows'][number][] = [];
  let tokenCount = 0;
  let next = 1;
  const loop = new StepLoop({
    ...{ device, path: first, workerId: 'w', bootId: 'b', calibrationShareLimit: 0 },
    now: () => performance.now(),
    log: () => {},
    send(frame) {
      if (frame.type === 'stepRows') rows.push(...frame.rows);
      if (frame.type === 'pathChanged') changedTo.push(pathId(frame.path));
      if (frame.type === 'ended') ended.push(frame.ended);
      if (frame.type !== 'tokens') return;
      for (const { sequenceId, tokenId } of frame.events) {
        tokens.set(sequenceId, [...(tokens.get(sequenceId) ?? []), tokenId]);
        tokenCount += 1;
        const path = tokenCount % every === 0 ? paths[next] : undefined;
        if (path === undefined) continue;
        next += 1;
        loop.receive({ type: 'switchTo', path, rolloutId: '' });
      }
    },
  });
  for (let index = 0; index < SEQUENCES; index += 1) {
    loop.receive({
      type: 'submit',
      ageMs: 0,
      spec: {
        sequenceId: String(index),
        promptTokenIds: Array.from({ length: 60 }, (_, place) => 300 + ((index * 97 + place * 31) % 900)),
        generatedTokenIds: [],
        sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
        maxTokens: ANSWER_TOKENS,
        stopTokenIds: [],
        tenant: 'test',
        program: '',
        serviceTier: 'default',
        objectives: { ttftMs: 0, itlMs: 0 },
        ageLimits: null,
        cacheSalt: '',
      },
    });
  }
  loop.receive({ type: 'drain' });
  await loop.run();
  device.close();
  return { tokens, ended, changedTo, rows, envelope: device.envelope };
}

it('float32 to bf16 to int8 and back: every stream ends by its length, and says that its bits are mixed', async () => {
  const envelope = (await run([await path('attention.float32')], 1e9)).envelope;
  const paths = await Promise.all(
    (
      [
        'attention.float32',
        'attention.bf16',
        'attention.int8',
        'attention.bf16',
        'attention.float32',
      ] as const
    ).map(path),
  );
  const { tokens, ended, changedTo, rows } = await run(paths, 240);
  expect(changedTo).toEqual(paths.slice(1).map(pathId));
  expect(ended.map(({ reason }) => reason)).toEqual(Array.from({ length: SEQUENCES }, () => 'length'));
  for (const own of tokens.values()) expect(own).toHaveLength(ANSWER_TOKENS);
  expect(ended.some(({ isMixedNumerics }) => isMixedNumerics)).toBe(true);
  const counts = new Set(rows.map(({ kvBlockCount }) => kvBlockCount));
  expect([...counts].sort()).toEqual([...new Set(paths.map((one) => kvBlockCountOf(envelope, one)))].sort());
  // In the smaller formats more of them fit at once; back in float32 some had to go, and were computed again.
  const most = (id: ExecutionPath['attention']) => {
    const pathIds = new Set(paths.filter(({ attention }) => attention === id).map(pathId));
    return Math.max(...rows.filter((row) => pathIds.has(row.pathId)).map(({ runningCount }) => runningCount));
  };
  expect(most('attention.bf16')).toBeGreaterThan(most('attention.float32'));
  expect(ended.reduce((sum, { preemptionCount }) => sum + preemptionCount, 0)).toBeGreaterThan(0);
});

it('an answer whose keys and values were rounded on the way keeps most of its tokens', async () => {
  const plain = await run([await path('attention.float32')], 1e9);
  const rounded = await run([await path('attention.float32'), await path('attention.bf16')], 300);
  let same = 0;
  for (const [sequenceId, own] of plain.tokens) {
    const other = rounded.tokens.get(sequenceId) ?? [];
    const differing = own.findIndex((tokenId, place) => tokenId !== other[place]);
    same += differing === -1 ? own.length : differing;
  }
  expect(same / (SEQUENCES * ANSWER_TOKENS)).toBeGreaterThan(0.45);
});

async function path(attention: ExecutionPath['attention']): Promise<ExecutionPath> {
  const device = cpuDevice(await loadModel(story), options);
  const { throughput } = namedPaths(device.envelope);
  device.close();
  return { ...throughput, attention };
}
