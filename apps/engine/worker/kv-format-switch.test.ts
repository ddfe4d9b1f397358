/**
 * Paths whose attention keeps keys and values in another format, switched live on the real CPU device: no stream is
 * dropped, blocks carry over where the new pool has them, and the others are computed again.
 */
import { fileURLToPath } from 'node:url';
import { type ExecutionPath, kvBlockCountOf, namedPaths, pathId } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { expect, it } from 'vitest';
import { cpuDevice } from './cpu-device.ts';
import { answerAcrossSwitches, sameShare } from './live-switch.fixture.ts';

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

async function run(paths: readonly ExecutionPath[], tokensPerPath: number) {
  const device = cpuDevice(await loadModel(story), options);
  const switched = await answerAcrossSwitches({
    ...{ device, paths, tokensPerPath, answerTokens: ANSWER_TOKENS },
    prompts: Array.from({ length: SEQUENCES }, (_, index) =>
      Array.from({ length: 60 }, (_, place) => 300 + ((index * 97 + place * 31) % 900)),
    ),
  });
  device.close();
  return { ...switched, envelope: device.envelope };
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
  expect(sameShare(plain, rounded)).toBeGreaterThan(0.45);
});

async function path(attention: ExecutionPath['attention']): Promise<ExecutionPath> {
  const device = cpuDevice(await loadModel(story), options);
  const { throughput } = namedPaths(device.envelope);
  device.close();
  return { ...throughput, attention };
}
