/**
 * The worker's road on a CUDA device, with the emulated one in the GPU's place: the scheduler composes, the kernels compute.
 * Says nothing of speed. What the exact path gives must not depend on batch, chunk, cache, preemption or a switch.
 */

import { cudaLinearVariants, variantOf } from '@variator/kernels/catalogue';
import { cudaKernels } from '@variator/kernels/cuda-variants';
import { kernelsId, namedPaths, parsePath } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { cudaLibraryFiles, loadCuda } from '@variator/kernels/native-cuda';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { buildCuda } from '../../../packages/kernels/build-cuda.mjs';
import { readGolden } from '../../../packages/kernels/golden-files.fixture.ts';
import { cudaDevice, cudaPath } from './cuda-device.ts';
import type { Device } from './device.ts';
import { runRoad } from './golden-road.fixture.ts';

/** The emulator is slow, and slower beside other work: what is asked is whether, never how soon. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const built = await buildCuda().catch((error: Error) => {
  console.warn(`SKIPPED: the CUDA kernels on the emulated device (${error.message})`);
  return null;
});
const golden = readGolden('llama-gqa');
const options = {
  kind: 'cuda-emulated',
  ordinal: 0,
  kvMemoryBytes: 2 * 1024 ** 2,
  maxModelLenTokens: 256,
} as const;
const limited = (name: string, tokenBudget: number, maxRunningCount: number): string =>
  `${name},tokenBudget=${tokenBudget},maxRunningCount=${maxRunningCount}`;

describe.skipIf(built === null || golden === null)('the worker on the emulated CUDA device', () => {
  const cases = (golden?.cases ?? []).slice(0, 3);
  const asked = cases.map(({ prompt }, index) => ({
    prompt: prompt.slice(0, 24),
    maxTokens: 8,
    temperature: index === 2 ? 0.8 : 0,
  }));
  let device: Device;
  let alone: number[][];

  beforeAll(async () => {
    device = await cudaDevice(await loadModel(golden?.modelPath ?? ''), options);
    alone = (await runRoad(device, asked, { path: limited('reference', 512, 1) })).outputs;
  });
  afterAll(() => device?.close());

  it('says what it is: emulated, with the sizes of a GPU and no figures of one', () => {
    const { envelope } = device;
    expect(envelope).toMatchObject({
      deviceKind: 'cuda-emulated',
      deviceName: expect.stringContaining('emulated'),
      // There is no cuBLASLt to find on a machine without CUDA.
      linearVariants: cudaLinearVariants.filter((id) => id !== 'linear.cuda-bf16-library'),
      // Heads of 16 are not for wgmma.
      attentionVariants: ['attention.cuda-bf16', 'attention.cuda-fp8'],
      maxRunningCount: 256,
      maxTokenBudget: 8192,
      maxModelLenTokens: 256,
      threadCount: 1,
    });
    expect(envelope.probe).toMatchObject({ features: ['sm90', 'emulated'], readBytesPerSecond: 0 });
    // 2 MiB of bf16 keys and values, less the scratch blocks.
    const blocks = Math.floor(options.kvMemoryBytes / (16 * envelope.kvBytesPerToken)) - 64;
    expect(envelope.kvBlockCount).toBe(Math.min(blocks, 256 * 16));
    expect(envelope.kvBlockCounts['attention.cuda-bf16']).toBe(envelope.kvBlockCount);
    // 16 dimensions a head: 20 bytes where there were 32.
    expect(envelope.kvBlockCounts['attention.cuda-fp8']).toBeGreaterThanOrEqual(
      Math.floor(envelope.kvBlockCount * 1.6),
    );
  });

  it('begins as the golden answers do', () => {
    // bf16 may choose otherwise where two logits nearly tie; not at once, and not in every answer.
    const agreed = cases
      .slice(0, 2)
      .flatMap(({ greedy }, index) => greedy.slice(0, 8).map((token, at) => token === alone[index]?.[at]));
    expect(agreed.filter((isEqual) => isEqual).length).toBeGreaterThanOrEqual(8);
  });

  it('gives the same bytes alone, in a crowd and in chunks', async () => {
    const crowd = await runRoad(device, asked, { path: limited('reference', 512, 32) });
    expect(crowd.outputs).toEqual(alone);
    expect(crowd.largestBatch).toBe(asked.length);
    expect((await runRoad(device, asked, { path: limited('reference', 7, 3) })).outputs).toEqual(alone);
  });

  it('gives the same bytes after preemption', async () => {
    const longer = asked.map((one) => ({ ...one, maxTokens: 30 }));
    const blockCount = Math.ceil((24 + 30) / 16) + 2;
    const path = limited('reference', 512, 32);
    const crowd = await runRoad(device, longer, { path, blockCount });
    expect(crowd.preemptionCount).toBeGreaterThan(0);
    expect(crowd.outputs.map((tokens) => tokens.slice(0, 8))).toEqual(alone);
  });

  it('gives the same bytes from the prefix cache', async () => {
    const path = limited('reference', 512, 32);
    const twice = await runRoad(device, [...asked, ...asked], { path, isOneByOne: true });
    // Those drawn by seed have another one each.
    expect(twice.outputs.slice(0, 5)).toEqual([...alone, ...alone.slice(0, 2)]);
    expect(twice.cachedTokenCount).toBeGreaterThan(0);
  });

  it('gives the same bytes across switches to other kernels that share its bits', async () => {
    const path = limited('reference', 512, 32);
    const otherPath = `${limited('reference', 9, 4)},tiles=mma.tile=2+graphs.use=0`;
    const { envelope } = device;
    expect(kernelsId(parsePath(path, envelope))).not.toBe(kernelsId(parsePath(otherPath, envelope)));
    const paths = [path, otherPath].map((text) => parsePath(text, envelope));
    for (const each of paths) await device.prepare(each);
    const { outputs, switchCount } = await runRoad(device, asked, { path, otherPath, switchSteps: 2 });
    expect(outputs).toEqual(alone);
    expect(switchCount).toBeGreaterThan(1);
  });

  it.each(['fp8', 'int4'] as const)(
    'gives the same bytes alone and in a crowd with weights in %s, and other bytes than bf16',
    async (format) => {
      const linear = `linear=linear.cuda-${format}-mma`;
      const own = await runRoad(device, asked, { path: `${limited('reference', 512, 1)},${linear}` });
      const crowd = await runRoad(device, asked, { path: `${limited('reference', 9, 4)},${linear}` });
      expect(crowd.outputs).toEqual(own.outputs);
      expect(own.outputs).not.toEqual(alone);
    },
  );

  it('verifies guesses without another byte', async () => {
    const path = `${limited('reference', 512, 32)},draftTokenCount=4`;
    expect((await runRoad(device, asked, { path })).outputs).toEqual(alone);
  });

  it('tells the device what it takes, and runs other bits where a path asks for them', async () => {
    const path = parsePath('latency', device.envelope);
    await device.prepare(path);
    const entry = {
      sequenceId: 's',
      tokenIds: [1, 2, 3],
      contextLength: 0,
      blockTable: [device.scratchBlockIds[0] ?? 0],
      isSampled: true,
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 0, logprobCount: 2 },
      scoredTokenIds: [2, 3, -1],
      kind: 'prefill',
    } as const;
    const result = await device.run(path, [entry], 'scratch');
    expect(result.deviceMs).toBeGreaterThan(0);
    expect(result.sampledTokenIds).toHaveLength(1);
    const [logprobs = []] = result.logprobs ?? [];
    expect(logprobs).toHaveLength(3);
    for (const { logprob, top } of logprobs) {
      expect(logprob).toBeLessThanOrEqual(0);
      expect(top).toHaveLength(2);
      expect(top[0]?.[1]).toBeGreaterThanOrEqual(logprob);
    }
    expect(logprobs[2]?.top[0]?.[0]).toBe(result.sampledTokenIds[0]);
  });

  it('promises of every variant what the library does', () => {
    const native = loadCuda(cudaLibraryFiles['cuda-emulated'], 0);
    const { reference } = namedPaths(device.envelope);
    for (const linear of device.envelope.linearVariants) {
      const { isBatchInvariant } = variantOf(linear);
      expect(native.isBatchInvariant(cudaPath({ ...reference, linear })), linear).toBe(isBatchInvariant);
    }
  });

  it('has tiles as many as the catalogue says, and one device a process', () => {
    const native = loadCuda(cudaLibraryFiles['cuda-emulated'], 0);
    const { parameters } = cudaKernels.find(({ id }) => id === 'mma') ?? {};
    expect(parameters?.tile?.values).toEqual([...Array(native.mmaTileCount() + 1).keys()]);
    expect(() => loadCuda(cudaLibraryFiles['cuda-emulated'], 1)).toThrow(
      /another CUDA device: one a process/,
    );
  });
});
