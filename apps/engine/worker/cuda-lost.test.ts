/**
 * A CUDA device that is lost in the middle of streams, on the emulated one: the library of one worker fails from a step on, as a
 * driver does after a fault. Its streams must go on with the other worker, to the byte.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parsePath } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { DeviceLostError } from '@variator/kernels/native-cuda';
import { afterAll, beforeAll, describe, expect, it, vi } from 'vitest';
import { buildCuda } from '../../../packages/kernels/build-cuda.mjs';
import { faultyCuda } from '../../../packages/kernels/faulty-cuda.fixture.ts';
import { readGolden } from '../../../packages/kernels/golden-files.fixture.ts';
import { LINK_VERSION } from '../fleet/link-frames.ts';
import { type RealWorkers, readStream, realWorkers, specOf } from '../fleet/real-workers.fixture.ts';
import { cudaDevice } from './cuda-device.ts';
import { gatewayLink } from './gateway-link.ts';
import { StepLoop } from './step-loop.ts';

/** The emulator is slow, and slower beside other work: what is asked is whether, never how soon. */
vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const built = await buildCuda().catch((error: Error) => {
  console.warn(`SKIPPED: a lost CUDA device, on the emulated one (${error.message})`);
  return null;
});
const golden = readGolden('llama-gqa');
const now = () => performance.timeOrigin + performance.now();

describe.skipIf(built === null || golden === null)('a CUDA device that is lost', () => {
  const folder = mkdtempSync(join(tmpdir(), 'variator-lost-'));
  const prompts = Array.from({ length: 4 }, (_, at) =>
    Array.from({ length: 5 + at }, (_, index) => 10 + at + 7 * index),
  );
  const specs = (name: string) =>
    prompts.map((prompt, at) =>
      specOf(`${name}-${at}`, prompt, 12, at % 2 === 0 ? {} : { temperature: 0.9, topP: 0.95, seed: 7 + at }),
    );
  let workers: RealWorkers;

  beforeAll(async () => {
    workers = await realWorkers({
      workerCount: 1,
      device: 'cuda-emulated:0',
      modelPath: golden?.modelPath ?? '',
      maxModelLen: 256,
    });
  });
  afterAll(async () => {
    await workers?.close();
    rmSync(folder, { recursive: true });
  });

  it('ends its worker, and its streams go on elsewhere to the byte', async () => {
    const submit = (name: string) =>
      Promise.all(specs(name).map((spec) => readStream(workers.fleet.submit(spec, 0))));
    const undisturbed = (await submit('undisturbed')).map(({ tokenIds }) => tokenIds);

    const device = await cudaDevice(await loadModel(golden?.modelPath ?? ''), {
      kind: 'cuda-emulated',
      ordinal: 0,
      kvMemoryBytes: 2 * 1024 ** 2,
      maxModelLenTokens: 256,
      libraryFile: faultyCuda(folder, {
        fault: 'deviceLost',
        library: built?.library ?? '',
        lostAfterSteps: 5,
      }),
    });
    const path = parsePath('reference', device.envelope);
    await device.prepare(path);
    const loop = new StepLoop({
      ...{ device, path, workerId: 'doomed', bootId: 'b', calibrationShareLimit: 0, now, log: () => {} },
      send: (frame) => link.send(frame),
    });
    const link = gatewayLink({
      place: { kind: 'local', socketPath: workers.linkPath },
      *greeting() {
        const { envelope } = device;
        yield {
          ...{ type: 'hello', version: LINK_VERSION, workerId: 'doomed', bootId: 'b' },
          ...{ pid: process.pid, envelope, path },
        } as const;
      },
      onFrame: (frame) => loop.receive(frame),
      onLost: () => loop.forgetGateway(),
      log: () => {},
    });
    const linked = link.run();
    await workers.joinedCount(2);

    const streams = submit('disturbed');
    await expect(loop.run()).rejects.toThrow(DeviceLostError);
    await link.end();
    await linked;
    const read = await streams;
    expect(read.map(({ tokenIds }) => tokenIds)).toEqual(undisturbed);
    expect(read.every(({ ended }) => ended.reason === 'length')).toBe(true);
    expect(read.some(({ end }) => end.resumeCount === 1)).toBe(true);
    expect(new Set(read.map(({ end }) => end.workerId))).toEqual(new Set(['worker-0']));
    device.close();
  });
});
