/**
 * Guesses in a step: each row yields what it would have yielded had the guesses before it been drawn, to the token, greedy
 * and drawn by seed; and guesses that were wrong leave nothing behind.
 */
import { fileURLToPath } from 'node:url';
import { expect, test } from 'vitest';
import { loadModel } from './model/load-model.ts';
import { loadNative, NativeError } from './native.ts';
import { StepDriver } from './step-driver.fixture.ts';

const native = loadNative();
const story = fileURLToPath(new URL('../../models/stories-5m', import.meta.url));
const linear = 'linear.int8-generic';
const prompt = Array.from({ length: 40 }, (_, index) => 300 + ((index * 37) % 900));
const LENGTH = 24;

async function open() {
  const driver = new StepDriver(native, await loadModel(story), {
    sequenceCount: 3,
    tokensPerSequence: 128,
    threadCount: 2,
    blockSize: 5,
    attention: 'attention.bf16',
  });
  await driver.prepare(linear);
  return driver;
}

test.each([
  ['greedy', { temperature: 0 }],
  ['drawn by seed', { temperature: 0.9, topP: 0.9, seed: 77 }],
])('%s: with right and wrong guesses the tokens are those of one at a time', async (_, sampling) => {
  const driver = await open();
  const plain: number[] = [];
  let next = [...prompt];
  while (plain.length < LENGTH) {
    const chunk = { sequence: 0, tokenIds: next, isSampled: true, ...sampling };
    const [token = -1] = (await driver.step([chunk], { linear })).sampledTokenIds;
    plain.push(token);
    next = [token];
  }
  // The same again with guesses: `rightCount` of them right, the others not.
  const guessed: number[] = [];
  const first = await driver.step([{ sequence: 1, tokenIds: prompt, isSampled: true, ...sampling }], {
    linear,
  });
  guessed.push(first.sampledTokenIds[0] ?? -1);
  for (let round = 0; guessed.length < LENGTH; round += 1) {
    const draftCount = 1 + (round % 5);
    const rightCount = round % (draftCount + 1);
    const drafts = Array.from({ length: draftCount }, (_, index) =>
      index < rightCount ? (plain[guessed.length + index] ?? 5) : 5,
    );
    const length = prompt.length + guessed.length - 1;
    expect(driver.contextLengths[1]).toBe(length);
    const others = { sequence: 2, tokenIds: prompt.slice(0, 3), isSampled: true };
    const { sampledTokenIds } = await driver.step(
      [
        others,
        {
          sequence: 1,
          tokenIds: [...guessed.slice(-1), ...drafts],
          isSampled: true,
          draftCount,
          ...sampling,
        },
      ],
      { linear },
    );
    driver.rewind(2, 0);
    expect(sampledTokenIds).toHaveLength(2 + draftCount);
    const drawn = [...sampledTokenIds.subarray(1)];
    let accepted = 0;
    while (accepted < draftCount && drawn[accepted] === drafts[accepted]) accepted += 1;
    guessed.push(...drawn.slice(0, accepted + 1));
    driver.rewind(1, length + 1 + accepted);
  }
  expect(guessed.slice(0, LENGTH)).toEqual(plain);
  driver.close();
});

test('guesses that leave no token before them, or that have rules beside them, are refused by name', async () => {
  const driver = await open();
  const chunk = { sequence: 0, tokenIds: [7, 8], isSampled: true };
  const refused = (change: object, settings = {}) =>
    expect(driver.step([{ ...chunk, ...change }], { linear, ...settings })).rejects;
  await refused({ draftCount: 2 }).toThrow(/^draftCounts\[0\]: must leave a token/);
  await refused({ draftCount: -1 }).toThrow(NativeError);
  await refused({ draftCount: 1, isSampled: false }).toThrow(/^draftCounts\[0\]: drafts need/);
  const scoring = { topCounts: Int32Array.of(0), scoredTokenIds: Int32Array.of(-1, -1) };
  await refused({ draftCount: 1 }, { scoring }).toThrow(/^draftCounts\[0\]: drafts need/);
  driver.close();
});
