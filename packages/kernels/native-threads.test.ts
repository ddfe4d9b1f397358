/** A step takes fewer threads while other processes keep the processors busy, says so, and gives the same bits. */
import { type ChildProcess, spawn } from 'node:child_process';
import { availableParallelism, platform } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from './model/load-model.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const story = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
const variants = ['linear.int8-generic', 'linear.reference'] as const;
type Variant = (typeof variants)[number];
const hogs: ChildProcess[] = [];
const killHogs = () => {
  for (const hog of hogs.splice(0)) hog.kill('SIGKILL');
};
afterAll(killHogs);

/** Steps of three sequences, each with this many tokens from the beginning. */
async function openSteps(threadCount: number) {
  const driver = new StepDriver(loadNative(), await loadModel(story), {
    sequenceCount: 3,
    tokensPerSequence: 256,
    threadCount,
    blockSize: 16,
  });
  for (const linear of variants) await driver.prepare(linear);
  return {
    step(linear: Variant, length: number) {
      const chunks = [0, 1, 2].map((sequence) => ({
        sequence,
        tokenIds: Array.from({ length }, (_, at) => 300 + ((37 * at + 11 * sequence) % 1500)),
        isSampled: true,
      }));
      for (const { sequence } of chunks) driver.rewind(sequence, 0);
      return driver.step(chunks, { linear, isLogitsWanted: true });
    },
    close: () => driver.close(),
  };
}

test.skipIf(platform() !== 'linux' || availableParallelism() < 2)(
  'beside busy processes a step gives threads up, which then help as far as they get a processor',
  async () => {
    const threadCount = Math.min(availableParallelism(), 8);
    const crowded = await openSteps(threadCount);
    for (let count = 0; count < availableParallelism(); count += 1) {
      hogs.push(spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }));
    }
    const until = performance.now() + 20_000;
    let beside = await crowded.step('linear.int8-generic', 1);
    while (beside.threadCount === threadCount && performance.now() < until) {
      beside = await crowded.step('linear.int8-generic', 1);
    }
    expect(beside.threadCount).toBeLessThan(threadCount);
    const seen: { linear: Variant; length: number; logits: Float32Array | null }[] = [];
    for (const linear of variants) {
      // Memory grows while helpers may still be reading.
      for (const length of [1, 3, 40, 1, 97, 250, 1, 1, 250, 40, 3, 1, 1, 1]) {
        const { logits, threadCount: used } = await crowded.step(linear, length);
        expect(used).toBeLessThan(threadCount);
        seen.push({ linear, length, logits });
      }
    }
    crowded.close();
    killHogs();
    const alone = await openSteps(1);
    for (const { linear, length, logits } of seen) {
      const expected = await alone.step(linear, length);
      expect(logits, `${linear}, ${length} tokens each`).toEqual(expected.logits);
    }
    alone.close();
  },
);
