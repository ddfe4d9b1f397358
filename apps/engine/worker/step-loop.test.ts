import { type Envelope, type ExecutionPath, pathId } from '@variator/kernels/execution-path';
import { NativeError } from '@variator/kernels/native';
import { DeviceLostError } from '@variator/kernels/native-cuda';
import type { SequenceSpec } from '@variator/scheduler/sequence';
import { expect, it } from 'vitest';
import type { WorkerFrame } from '../fleet/link-frames.ts';
import { readStream, realWorkers, specOf } from '../fleet/real-workers.fixture.ts';
import type { Device } from './device.ts';
import { StepLoop } from './step-loop.ts';

const path: ExecutionPath = {
  linear: 'linear.reference',
  attention: 'attention.reference',
  threadCount: 1,
  tokenBudget: 16,
  maxRunningCount: 4,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
};
const envelope: Envelope = {
  deviceKind: 'test',
  deviceName: 'test device',
  modelId: 'm',
  modelHash: 'h',
  linearVariants: ['linear.int8-generic', 'linear.reference'],
  attentionVariants: ['attention.reference'],
  threadCount: 1,
  kvBlockCount: 16,
  kvBlockCounts: {},
  kvBlockSize: 16,
  maxModelLenTokens: 128,
  maxTokenBudget: 64,
  maxRunningCount: 8,
  maxDraftTokenCount: 0,
  vocabularySize: 100,
  layerCount: 1,
  headCount: 1,
  headSize: 8,
  activeParameterCount: 1,
  weightBytes: {},
  kvBytesPerToken: 1,
  probe: {
    cpuModel: '',
    coreCount: 1,
    features: [],
    readBytesPerSecond: 1,
    float32FlopsPerSecond: 1,
    int8OpsPerSecond: 1,
  },
};

/** A device without memory for packed weights: only the reference can be made ready. */
const device: Device = {
  envelope,
  scratchBlockIds: [16, 17],
  prepare: async ({ linear }) => {
    if (linear !== 'linear.reference') throw new Error('no memory for packed weights');
    return { prepareMs: 0 };
  },
  keepKvFor: async () => ({ convertMs: 0 }),
  measureAside: async () => false,
  run: async () => ({ sampledTokenIds: new Int32Array(), deviceMs: 1, foreignCpuShare: 0 }),
  close: () => undefined,
};

it('a switch whose kernels cannot be made ready, or that is not legal, is answered and leaves the path', async () => {
  const sent: WorkerFrame[] = [];
  const loop = new StepLoop({
    ...{ device, path, workerId: 'w', bootId: 'b', calibrationShareLimit: 0, now: () => performance.now() },
    send: (frame) => sent.push(frame),
    log: () => {},
  });
  const running = loop.run();
  const packed: ExecutionPath = { ...path, linear: 'linear.int8-generic' };
  const illegal: ExecutionPath = { ...path, tokenBudget: 1_000_000 };
  const legal: ExecutionPath = { ...path, tokenBudget: 32 };
  for (const wanted of [packed, illegal, legal])
    loop.receive({ type: 'switchTo', path: wanted, rolloutId: '' });
  while (!sent.some(({ type }) => type === 'pathChanged'))
    await new Promise((resolve) => setImmediate(resolve));
  loop.stop();
  await running;
  const refused = new Map(
    sent.flatMap((frame) => (frame.type === 'switchRefused' ? [[frame.pathId, frame.fault] as const] : [])),
  );
  expect(refused.size).toBe(2);
  expect(refused.get(pathId(packed))).toBe('no memory for packed weights');
  expect(refused.get(pathId(illegal))).toMatch(/tokenBudget must be/);
  expect(loop.livePath()).toEqual(legal);
});

it('a switch and a stop that come while the idle cache is converted wait for nothing more', async () => {
  const sent: WorkerFrame[] = [];
  const conversions: (() => void)[] = [];
  const converting: Device = {
    ...device,
    envelope: { ...envelope, attentionVariants: ['attention.int8', 'attention.bf16', 'attention.reference'] },
    keepKvFor: () => new Promise((resolve) => conversions.push(() => resolve({ convertMs: 1 }))),
  };
  const loop = new StepLoop({
    ...{ path, workerId: 'w', bootId: 'b', calibrationShareLimit: 0, now: () => performance.now() },
    device: converting,
    send: (frame) => sent.push(frame),
    log: () => {},
  });
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const running = loop.run();
  const first: ExecutionPath = { ...path, attention: 'attention.bf16' };
  const second: ExecutionPath = { ...path, attention: 'attention.int8' };
  loop.receive({ type: 'switchTo', path: first, rolloutId: '' });
  while (conversions.length < 1) await turn();
  loop.receive({ type: 'switchTo', path: second, rolloutId: '' });
  await turn();
  conversions[0]?.();
  for (let turns = 0; turns < 20; turns += 1) await turn();
  expect(sent.flatMap((frame) => (frame.type === 'pathChanged' ? [frame.path.attention] : []))).toEqual([
    'attention.bf16',
    'attention.int8',
  ]);
  loop.stop();
  conversions[1]?.();
  await running;
});

it('a lost device ends the worker and no sequence: they are for another worker to go on with', async () => {
  const sent: WorkerFrame[] = [];
  const lost = new DeviceLostError('stream: an illegal memory access was encountered');
  let stepCount = 0;
  const loop = new StepLoop({
    ...{ path, workerId: 'w', bootId: 'b', calibrationShareLimit: 0, now: () => performance.now() },
    device: {
      ...device,
      run: async (_path, entries) => {
        stepCount += 1;
        if (stepCount > 2) throw lost;
        return { sampledTokenIds: Int32Array.from(entries, () => 7), deviceMs: 1, foreignCpuShare: 0 };
      },
    },
    send: (frame) => sent.push(frame),
    log: () => {},
  });
  const running = loop.run();
  loop.receive({ type: 'submit', spec: specOf('open', [1, 2, 3], 9), ageMs: 0 });
  await expect(running).rejects.toBe(lost);
  expect(sent.filter(({ type }) => type === 'tokens')).toHaveLength(2);
  expect(sent.filter(({ type }) => type === 'ended')).toEqual([]);
});

it('a sequence that is cancelled during a step ends with it, and its blocks are free before the next', async () => {
  const sent: WorkerFrame[] = [];
  let finish: (() => void) | null = null;
  const stepping: Device = {
    ...device,
    run: (_path, entries) =>
      new Promise((resolve) => {
        finish = () =>
          resolve({
            sampledTokenIds: Int32Array.from(entries, () => 7),
            deviceMs: 1,
            foreignCpuShare: 0,
          });
      }),
  };
  const loop = new StepLoop({
    ...{ device: stepping, path, workerId: 'w', bootId: 'b', calibrationShareLimit: 0 },
    now: () => performance.now(),
    send: (frame) => sent.push(frame),
    log: () => {},
  });
  const running = loop.run();
  const turn = () => new Promise((resolve) => setImmediate(resolve));
  const stepDone = async () => {
    while (finish === null) await turn();
    const act: () => void = finish;
    finish = null;
    act();
  };
  const spec = (sequenceId: string) =>
    ({
      sequenceId,
      promptTokenIds: [1, 2, 3, 4, 5],
      generatedTokenIds: [],
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
      maxTokens: 50,
      stopTokenIds: [],
      tenant: '',
      program: '',
      serviceTier: 'default',
      objectives: { ttftMs: 0, itlMs: 0 },
      ageLimits: null,
      cacheSalt: '',
    }) satisfies SequenceSpec;
  await turn();
  loop.receive({ type: 'submit', spec: spec('leaves'), ageMs: 0 });
  await stepDone();
  while (finish === null) await turn();
  // One runs in the step under way, one has only come: both leave now.
  loop.receive({ type: 'submit', spec: spec('waits'), ageMs: 0 });
  for (const sequenceId of ['leaves', 'waits'])
    loop.receive({ type: 'cancel', sequenceId, reason: 'cancelled' });
  const endedIds = () => sent.flatMap((frame) => (frame.type === 'ended' ? [frame.ended.sequenceId] : []));
  expect(endedIds()).toEqual(['waits']);
  await stepDone();
  while (endedIds().length < 2) await turn();
  await turn();
  expect(endedIds()).toEqual(['waits', 'leaves']);
  expect(loop.heartbeat()).toMatchObject({ runningCount: 0, waitingCount: 0, kvUsedBlockCount: 0 });
  expect(finish).toBeNull();
  loop.stop();
  await running;
});

it('a step that the kernels refuse ends its own sequences with an error, and the worker serves on', async () => {
  const workers = await realWorkers({ workerCount: 1 });
  try {
    const pid = workers.pid(0);
    const prompt = Array.from({ length: 40 }, (_, index) => 10 + index);
    const before = await readStream(workers.fleet.submit(specOf('before', prompt, 20), 0));
    for (const round of [1, 2, 3]) {
      // The gateway refuses such ids; whatever it lets through by mistake may cost a step, and not the worker.
      const poisoned = workers.fleet.submit(specOf(`poisoned-${round}`, [...prompt, 2048], 20), 0);
      expect((await readStream(poisoned)).ended).toMatchObject({
        reason: 'error',
        message: expect.stringMatching(/^The step failed: tokenIds: 2048 is not one of 2048/),
      });
      const after = await readStream(workers.fleet.submit(specOf(`after-${round}`, prompt, 20), 0));
      expect(after.tokenIds).toEqual(before.tokenIds);
      expect(after.end.resumeCount).toBe(0);
    }
    expect(workers.pid(0)).toBe(pid);
    expect(workers.logged.filter((line) => line.includes('failed and ended its 1 sequences'))).toHaveLength(
      3,
    );
    for (let waited = 0; workers.fleet.workers()[0]?.kvUsedBlockCount !== 0; waited += 10) {
      if (waited > 10_000) throw new Error('blocks did not come back');
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  } finally {
    await workers.close();
  }
});

it('a device that can run no step any more ends the loop', async () => {
  const broken: Device = { ...device, run: () => Promise.reject(new NativeError('no memory')) };
  const loop = new StepLoop({
    ...{ device: broken, path, workerId: 'w', bootId: 'b', calibrationShareLimit: 0 },
    now: () => performance.now(),
    send: () => {},
    log: () => {},
  });
  for (let index = 0; index < 40; index += 1) {
    loop.receive({ type: 'submit', spec: specOf(`${index}`, [1, 2, 3], 5), ageMs: 0 });
  }
  await expect(loop.run()).rejects.toThrow('no memory');
});

it('kernels are measured while nothing runs, one call after the other, and not between the steps of a stream', async () => {
  const sent: WorkerFrame[] = [];
  const deeds: string[] = [];
  const spoken: string[] = [];
  let leftCount = 3;
  const measuring: Device = {
    ...device,
    run: async (_path, entries) => {
      deeds.push('step');
      return { sampledTokenIds: Int32Array.from(entries, () => 5), deviceMs: 1, foreignCpuShare: 0 };
    },
    measureAside: async () => {
      if (leftCount === 0) return false;
      leftCount -= 1;
      deeds.push('measured');
      if (leftCount === 2) loop.receive({ type: 'submit', spec: specOf('a', [1, 2, 3], 3), ageMs: 0 });
      if (leftCount === 0) throw new Error('there is no memory for it');
      return true;
    },
  };
  const loop = new StepLoop({
    ...{ path, workerId: 'w', bootId: 'b', calibrationShareLimit: 0, now: () => performance.now() },
    device: measuring,
    send: (frame) => sent.push(frame),
    log: (line) => spoken.push(line),
  });
  const running = loop.run();
  while (spoken.length === 0) await new Promise((resolve) => setImmediate(resolve));
  loop.stop();
  await running;
  expect(deeds).toEqual(['measured', 'step', 'step', 'step', 'measured', 'measured']);
  expect(spoken).toEqual(['Kernels were not measured: there is no memory for it']);
  expect(sent.filter(({ type }) => type === 'ended').length).toBe(1);
});
