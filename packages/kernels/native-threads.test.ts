/** A step takes fewer threads while other processes keep the processors busy, and says so; its bits stay the same. */
import { type ChildProcess, spawn } from 'node:child_process';
import { availableParallelism, platform } from 'node:os';
import { fileURLToPath } from 'node:url';
import { afterAll, expect, test } from 'vitest';
import { loadModel } from './model/load-model.ts';
import { loadNative } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const story = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
const linear = 'linear.int8-generic';
const hogs: ChildProcess[] = [];
afterAll(() => {
  for (const hog of hogs) hog.kill('SIGKILL');
});

test.skipIf(platform() !== 'linux' || availableParallelism() < 2)(
  'beside as many busy processes as there are processors, a step gives threads up',
  async () => {
    const threadCount = Math.min(availableParallelism(), 8);
    const driver = new StepDriver(loadNative(), await loadModel(story), {
      sequenceCount: 1,
      tokensPerSequence: 128,
      threadCount,
      blockSize: 16,
    });
    await driver.prepare(linear);
    const chunk = { sequence: 0, tokenIds: Array.from({ length: 96 }, (_, id) => 300 + id), isSampled: true };
    const step = async () => {
      driver.rewind(0, 0);
      return driver.step([chunk], { linear, isLogitsWanted: true });
    };
    const before = await step();
    for (let count = 0; count < availableParallelism(); count += 1) {
      hogs.push(spawn(process.execPath, ['-e', 'for (;;);'], { stdio: 'ignore' }));
    }
    const until = performance.now() + 20_000;
    let beside = await step();
    while (beside.threadCount === threadCount && performance.now() < until) beside = await step();
    expect(beside.threadCount).toBeLessThan(threadCount);
    expect(beside.logits).toEqual(before.logits);
    driver.close();
  },
);
