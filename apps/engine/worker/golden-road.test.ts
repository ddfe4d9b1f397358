/**
 * Golden tokens through the worker's own road: the scheduler composes, the CPU device computes. What comes out must not
 * depend on batch, chunk, cache, preemption or a switch of limits.
 */
import { afterAll, describe, expect, it } from 'vitest';
import { readGolden, tinyModels } from '../../../packages/kernels/golden-files.fixture.ts';
import type { Device } from './device.ts';
import { type Asked, type Conditions, openRoadDevice, runRoad } from './golden-road.fixture.ts';

const devices: Device[] = [];
afterAll(() => {
  for (const device of devices) device.close();
});

async function openDevice(modelPath: string): Promise<Device> {
  const device = await openRoadDevice(modelPath);
  devices.push(device);
  return device;
}

const limited = (name: string, tokenBudget: number, maxRunningCount: number): string =>
  `${name},tokenBudget=${tokenBudget},maxRunningCount=${maxRunningCount}`;
const wide = limited('reference', 512, 32);

for (const name of [...tinyModels, 'stories-5m']) {
  const golden = readGolden(name);
  describe.skipIf(golden === null)(`greedy tokens of ${name} on the reference path equal golden.json`, () => {
    const cases = golden?.cases ?? [];
    const asked = cases.map(({ prompt, greedy }) => ({ prompt, maxTokens: greedy.length }));
    const expected = cases.map(({ greedy }) => greedy);
    let device: Promise<Device> | null = null;
    const open = () => {
      device ??= openDevice(golden?.modelPath ?? '');
      return device;
    };

    it('one at a time', async () => {
      const { outputs, largestBatch } = await runRoad(await open(), asked, {
        path: limited('reference', 512, 1),
      });
      expect(outputs).toEqual(expected);
      expect(largestBatch).toBe(1);
    });

    it('all batched', async () => {
      const { outputs, largestBatch } = await runRoad(await open(), asked, { path: wide });
      expect(outputs).toEqual(expected);
      expect(largestBatch).toBe(asked.length);
    });

    it.each([1, 7, 64])('batched, with at most %i tokens a step', async (tokenBudget) => {
      const path = limited('reference', tokenBudget, Math.min(tokenBudget, 4));
      expect((await runRoad(await open(), asked, { path })).outputs).toEqual(expected);
    });

    it('with a warm prefix cache', async () => {
      const twice = [...asked, ...asked];
      const { outputs, cachedTokenCount } = await runRoad(await open(), twice, {
        path: wide,
        isOneByOne: true,
      });
      expect(outputs).toEqual([...expected, ...expected]);
      expect(cachedTokenCount).toBeGreaterThan(0);
    });

    it('after preemptions', async () => {
      // Answers longer than golden's outgrow what admission reserved; blocks for the longest alone, too few for all.
      const longer = asked.map(({ prompt, maxTokens }) => ({ prompt, maxTokens: maxTokens + 48 }));
      const blocksOf = ({ prompt, maxTokens }: Asked) => Math.ceil((prompt.length + maxTokens) / 16);
      const blockCount = Math.max(...longer.map(blocksOf)) + 2;
      const crowd = [...longer, ...longer, ...longer];
      const { outputs, preemptionCount } = await runRoad(await open(), crowd, { path: wide, blockCount });
      const starts = outputs.map((tokens, index) =>
        tokens.slice(0, expected[index % expected.length]?.length),
      );
      expect(starts).toEqual([...expected, ...expected, ...expected]);
      expect(outputs.slice(asked.length, 2 * asked.length)).toEqual(outputs.slice(0, asked.length));
      expect(preemptionCount).toBeGreaterThan(0);
    });

    it('speculating, and across a switch between guessing and not', async () => {
      const path = `${wide},draftTokenCount=8`;
      expect((await runRoad(await open(), asked, { path, otherPath: wide })).outputs).toEqual(expected);
    });

    it('across a switch of budget and running batch', async () => {
      const path = limited('reference', 5, 2);
      const { outputs, switchCount } = await runRoad(await open(), asked, { path, otherPath: wide });
      expect(outputs).toEqual(expected);
      expect(switchCount).toBeGreaterThan(3);
    });
  });
}

describe('the fast path gives the same bits whatever is around a sequence', () => {
  const golden = readGolden('stories-5m');
  it.skipIf(golden === null)(
    'greedy and seeded: alone, batched, chunked, cached, preempted, switched',
    async () => {
      const device = await openDevice(golden?.modelPath ?? '');
      const asked = (golden?.cases ?? []).map(({ prompt }, index) => ({
        prompt,
        maxTokens: 32,
        temperature: index % 2 === 0 ? 0 : 0.8,
      }));
      const alone = await runRoad(device, asked, { path: limited('balanced', 512, 1) });
      const others: Conditions[] = [
        { path: limited('balanced', 512, 32) },
        { path: limited('balanced', 7, 3) },
        { path: limited('balanced', 512, 32), blockCount: Math.ceil((251 + 32) / 16) + 2 },
        { path: limited('balanced', 3, 1), otherPath: limited('balanced', 512, 32) },
        { path: `${limited('balanced', 512, 32)},draftTokenCount=8` },
        { path: `${limited('balanced', 9, 3)},draftTokenCount=4`, otherPath: limited('balanced', 512, 32) },
      ];
      for (const conditions of others)
        expect((await runRoad(device, asked, conditions)).outputs).toEqual(alone.outputs);
      // Asked again with what it answered in the prompt, it says much of it again, and the guesses are right.
      const again = asked.map((one, index) => ({
        ...one,
        prompt: [...one.prompt, ...(alone.outputs[index] ?? []), ...one.prompt],
        temperature: 0,
      }));
      const plain = await runRoad(device, again, { path: limited('balanced', 512, 32) });
      const guessing = await runRoad(device, again, {
        path: `${limited('balanced', 512, 32)},draftTokenCount=8`,
      });
      expect(guessing.outputs).toEqual(plain.outputs);
      expect(guessing.acceptedDraftCount).toBeGreaterThan(20);
      expect(guessing.stepCount).toBeLessThan(plain.stepCount);
    },
  );
});
