/**
 * Golden tokens through the worker's own road: the scheduler composes, the CPU device computes. What comes out must not
 * depend on batch, chunk, cache, preemption or a switch of limits.
 */
import { numericsId, parsePath } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { Scheduler, type SchedulerLimits } from '@variator/scheduler/scheduler';
import { afterAll, describe, expect, it } from 'vitest';
import { readGolden, tinyModels } from '../../../packages/kernels/golden-files.fixture.ts';
import { cpuDevice } from './cpu-device.ts';
import type { Device } from './device.ts';

const devices: Device[] = [];
afterAll(() => {
  for (const device of devices) device.close();
});

interface Asked {
  readonly prompt: readonly number[];
  readonly maxTokens: number;
  readonly temperature?: number;
}

interface Conditions {
  readonly limits: SchedulerLimits;
  readonly blockCount?: number;
  /** Taken on in the middle, after this many steps. */
  readonly laterLimits?: SchedulerLimits;
  /** Sequences are submitted one after the other, each when the one before has ended. */
  readonly isOneByOne?: boolean;
  readonly path?: string;
}

async function openDevice(modelPath: string): Promise<Device> {
  const device = cpuDevice(await loadModel(modelPath), {
    threadCount: 2,
    kvMemoryBytes: 64 * 1024 ** 2,
    maxModelLenTokens: 1024,
  });
  devices.push(device);
  return device;
}

/** Every sequence's tokens in the order asked, and what the scheduler had to do for them. */
async function run(device: Device, asked: readonly Asked[], conditions: Conditions) {
  const path = { ...parsePath(conditions.path ?? 'reference', device.envelope), ...conditions.limits };
  await device.prepare(path);
  const scheduler = new Scheduler({
    blockCount: conditions.blockCount ?? device.envelope.kvBlockCount,
    blockSize: device.envelope.kvBlockSize,
    maxModelLenTokens: device.envelope.maxModelLenTokens,
    limits: conditions.limits,
    numericsId: numericsId(path),
  });
  const outputs = asked.map((): number[] => []);
  const seen = { preemptionCount: 0, cachedTokenCount: 0, largestBatch: 0 };
  let now = 0;
  const submit = (index: number) => {
    const question = asked[index];
    if (!question) return;
    const refused = scheduler.submit(
      {
        sequenceId: String(index),
        promptTokenIds: question.prompt,
        generatedTokenIds: [],
        sampling: { temperature: question.temperature ?? 0, topP: 0.95, topK: 50, seed: 1000 + index },
        maxTokens: question.maxTokens,
        stopTokenIds: [],
        tenant: 'test',
        program: '',
        serviceTier: 'default',
        objectives: { ttftMs: 0, itlMs: 0 },
        ageLimits: null,
        cacheSalt: '',
      },
      now,
    );
    expect(refused).toBeNull();
  };
  if (conditions.isOneByOne) submit(0);
  else for (const index of asked.keys()) submit(index);
  for (let step = 0; ; step += 1) {
    if (step === 3 && conditions.laterLimits) scheduler.setLimits(conditions.laterLimits);
    const batch = scheduler.schedule(now);
    if (!batch) break;
    seen.largestBatch = Math.max(seen.largestBatch, batch.entries.length);
    const result = await device.run(path, batch.entries);
    now += result.deviceMs;
    const settled = scheduler.settle({ stepId: batch.stepId, ...result }, now);
    for (const { sequenceId, tokenId } of settled.events) outputs[Number(sequenceId)]?.push(tokenId);
    for (const { sequenceId, reason } of settled.ended) {
      expect(reason).toBe('length');
      if (conditions.isOneByOne) submit(Number(sequenceId) + 1);
    }
    seen.preemptionCount += settled.preemptionCount;
    seen.cachedTokenCount += settled.cachedTokenCount;
  }
  return { outputs, ...seen };
}

const wide: SchedulerLimits = { tokenBudget: 512, maxRunningCount: 32 };

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
      const { outputs, largestBatch } = await run(await open(), asked, {
        limits: { tokenBudget: 512, maxRunningCount: 1 },
      });
      expect(outputs).toEqual(expected);
      expect(largestBatch).toBe(1);
    });

    it('all batched', async () => {
      const { outputs, largestBatch } = await run(await open(), asked, { limits: wide });
      expect(outputs).toEqual(expected);
      expect(largestBatch).toBe(asked.length);
    });

    it.each([1, 7, 64])('batched, with at most %i tokens a step', async (tokenBudget) => {
      const limits = { tokenBudget, maxRunningCount: Math.min(tokenBudget, 4) };
      expect((await run(await open(), asked, { limits })).outputs).toEqual(expected);
    });

    it('with a warm prefix cache', async () => {
      const twice = [...asked, ...asked];
      const { outputs, cachedTokenCount } = await run(await open(), twice, {
        limits: wide,
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
      const { outputs, preemptionCount } = await run(await open(), crowd, { limits: wide, blockCount });
      const starts = outputs.map((tokens, index) =>
        tokens.slice(0, expected[index % expected.length]?.length),
      );
      expect(starts).toEqual([...expected, ...expected, ...expected]);
      expect(outputs.slice(asked.length, 2 * asked.length)).toEqual(outputs.slice(0, asked.length));
      expect(preemptionCount).toBeGreaterThan(0);
    });

    it('across a switch of budget and running batch', async () => {
      const limits = { tokenBudget: 5, maxRunningCount: 2 };
      expect((await run(await open(), asked, { limits, laterLimits: wide })).outputs).toEqual(expected);
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
      const path = 'balanced';
      const alone = await run(device, asked, { limits: { tokenBudget: 512, maxRunningCount: 1 }, path });
      const others: Conditions[] = [
        { limits: wide, path },
        { limits: { tokenBudget: 7, maxRunningCount: 3 }, path },
        { limits: wide, blockCount: Math.ceil((251 + 32) / 16) + 2, path },
        { limits: { tokenBudget: 3, maxRunningCount: 1 }, laterLimits: wide, path },
      ];
      for (const conditions of others)
        expect((await run(device, asked, conditions)).outputs).toEqual(alone.outputs);
    },
  );
});
