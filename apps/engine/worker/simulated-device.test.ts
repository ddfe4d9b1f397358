/** A device that nobody has: its times are the model's, its words say what it is, and nothing else differs. */
import { Tokenizer } from '@huggingface/tokenizers';
import { namedPaths } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { rooflinePrior } from '@variator/optimizer/roofline-prior';
import type { BatchEntry } from '@variator/scheduler/batch';
import { featuresOf, predictMs, type StepTimeFit } from '@variator/scheduler/step-time';
import { afterAll, beforeAll, describe, expect, it } from 'vitest';
import { readConfig } from '../config.ts';
import { type RealWorkers, readStream, realWorkers, specOf } from '../fleet/real-workers.fixture.ts';
import { simulatedDevice } from './simulated-device.ts';

const model = await loadModel('models/stories-5m');
const deviceOf = (text: string) => {
  const { device } = readConfig(['--device', text], {});
  if (device.kind !== 'simulated') throw new Error('not simulated');
  return simulatedDevice(model, { ...device, maxModelLenTokens: null });
};
const entry = (contextLength: number, tokenCount: number, more: Partial<BatchEntry> = {}): BatchEntry => ({
  sequenceId: 's',
  tokenIds: Array.from({ length: tokenCount }, () => 5),
  contextLength,
  blockTable: [],
  isSampled: true,
  sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
  kind: tokenCount > 1 ? 'prefill' : 'decode',
  ...more,
});

describe('a simulated machine', () => {
  it('has the memory, the rates and the name of its kind, and of the model it is told to be', () => {
    const small = deviceOf('simulated:h100').envelope;
    const large = deviceOf('simulated:h100,parameters=8e9,kvBytesPerToken=131072').envelope;
    expect(small.deviceName).toBe('NVIDIA H100 80GB (simulated)');
    expect(large.deviceKind).toBe('simulated-h100-parameters-8e9-kvBytesPerToken-131072');
    expect(large.activeParameterCount).toBe(8e9);
    // 72 GB less 16 GB of weights, at 2 MiB a block.
    expect(large.kvBlockCount).toBe(Math.floor(56e9 / (131_072 * 16)) - 64);
    expect(small.modelHash).toBe(large.modelHash);
    expect(() => deviceOf('simulated:l4,parameters=13e9')).toThrow(/leave room for 0 tokens on NVIDIA L4/);
  });

  it('takes as long as the model of its steps says, in real time', async () => {
    const device = deviceOf('simulated:h100,parameters=8e9,kvBytesPerToken=131072,noise=0');
    const path = namedPaths(device.envelope).balanced;
    const fit = rooflinePrior(device.envelope, path) as StepTimeFit;
    const batches = [
      [entry(0, 100)],
      [entry(100, 1), entry(7, 30)],
      ...Array.from({ length: 20 }, () => [entry(9, 1)]),
    ];
    const startedAt = performance.now();
    let deviceMs = 0;
    for (const entries of batches) {
      const result = await device.run(path, entries, 'scheduled');
      expect(result.deviceMs).toBeCloseTo(predictMs(fit, featuresOf(entries)), 9);
      deviceMs += result.deviceMs;
    }
    // Reading 8 GB of weights takes 3 ms, 22 times; a timer that fires early is made up for.
    expect(deviceMs).toBeGreaterThan(60);
    expect(performance.now() - startedAt).toBeGreaterThan(deviceMs - 2);
  });

  it('says in every answer that it is simulated, by place, whatever the path or the batch', async () => {
    const device = deviceOf('simulated:h100');
    const { balanced, reference } = namedPaths(device.envelope);
    const said: number[] = [];
    for (let place = 0; place < 40; place += 1) {
      const path = place % 2 === 0 ? balanced : reference;
      const { sampledTokenIds } = await device.run(
        path,
        [entry(3, 4, { isSampled: false }), entry(place, 1)],
        'scheduled',
      );
      expect(sampledTokenIds[0]).toBe(-1);
      said.push(sampledTokenIds[1] ?? -1);
    }
    const { tokenizerJson, tokenizerConfig } = model.tokenizer;
    const text = new Tokenizer(tokenizerJson, tokenizerConfig).decode(said, {});
    expect(text).toContain('This answer is simulated: no model computed it.');
    expect((await device.run(reference, [entry(7, 10)], 'scheduled')).sampledTokenIds[0]).toBe(said[16]);
  });

  it('gives log-probabilities where they are asked for', async () => {
    const device = deviceOf('simulated:h100');
    const sampling = { temperature: 0, topP: 1, topK: 0, seed: 0, logprobCount: 2 };
    const { logprobs, sampledTokenIds } = await device.run(
      namedPaths(device.envelope).balanced,
      [entry(0, 3, { sampling, scoredTokenIds: [5, 6, -1] }), entry(4, 1)],
      'scheduled',
    );
    expect(logprobs?.map((list) => list.map(({ top }) => top[0]?.[0]))).toEqual([
      [5, 6, sampledTokenIds[0]],
      [],
    ]);
  });
});

describe('a fleet of simulated machines', () => {
  let workers: RealWorkers;
  beforeAll(async () => {
    workers = await realWorkers({
      workerCount: 2,
      path: 'balanced',
      device: 'simulated:h100,parameters=8e9,kvBytesPerToken=131072',
    });
  });
  afterAll(async () => {
    await workers?.close();
  });

  it('serves and is resumed like any other', async () => {
    const prompt = Array.from({ length: 200 }, (_, index) => 10 + index);
    const undisturbed = await readStream(workers.fleet.submit(specOf('a', prompt, 100), 0));
    let hasKilled = false;
    const killed = await readStream(workers.fleet.submit(specOf('b', prompt, 100), 0), (count) => {
      if (hasKilled || count < 20) return;
      hasKilled = true;
      workers.kill(Number(undisturbed.end.workerId.at(-1)));
    });
    expect(killed.tokenIds).toEqual(undisturbed.tokenIds);
    expect(killed.end.resumeCount).toBe(1);
    expect(workers.fleet.workers()[0]?.envelope.deviceName).toMatch(/\(simulated\)$/);
  });
});
