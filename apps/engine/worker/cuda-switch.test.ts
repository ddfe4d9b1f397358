/**
 * Paths that compute other bits, switched live by the step loop on the emulated CUDA device: weights in bf16, e4m3 and 4 bits;
 * keys and values in bf16 and e4m3. No stream is dropped, each ends by its length, and those that went across say so.
 */
import {
  type ExecutionPath,
  kvBlockCountOf,
  namedPaths,
  parsePath,
  pathId,
} from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { describe, expect, it, vi } from 'vitest';
import { buildCuda } from '../../../packages/kernels/build-cuda.mjs';
import { readGolden } from '../../../packages/kernels/golden-files.fixture.ts';
import type { WorkerFrame } from '../fleet/link-frames.ts';
import { cudaDevice } from './cuda-device.ts';
import type { Device } from './device.ts';
import { StepLoop } from './step-loop.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const built = await buildCuda().catch((error: Error) => {
  console.warn(`SKIPPED: the CUDA kernels on the emulated device (${error.message})`);
  return null;
});
const golden = readGolden('llama-gqa');
const SEQUENCES = 4;
const ANSWER_TOKENS = 20;

type Ended = Extract<WorkerFrame, { type: 'ended' }>['ended'];

/** Switches to the next path whenever `every` more tokens have come. */
async function run(device: Device, paths: readonly ExecutionPath[], every: number) {
  const [first] = paths;
  if (first === undefined) throw new Error('no path');
  await device.prepare(first);
  const tokens = new Map<string, number[]>();
  const ended: Ended[] = [];
  const changedTo: string[] = [];
  const kvBlockCounts = new Set<number>();
  let tokenCount = 0;
  let next = 1;
  const loop = new StepLoop({
    ...{ device, path: first, workerId: 'w', bootId: 'b', calibrationShareLimit: 0 },
    now: () => performance.now(),
    log: () => {},
    send(frame) {
      if (frame.type === 'stepRows') for (const row of frame.rows) kvBlockCounts.add(row.kvBlockCount);
      if (frame.type === 'pathChanged') changedTo.push(pathId(frame.path));
      if (frame.type === 'switchRefused') throw new Error(frame.fault);
      if (frame.type === 'ended') ended.push(frame.ended);
      if (frame.type !== 'tokens') return;
      for (const { sequenceId, tokenId } of frame.events) {
        tokens.set(sequenceId, [...(tokens.get(sequenceId) ?? []), tokenId]);
        tokenCount += 1;
        const path = tokenCount % every === 0 ? paths[next] : undefined;
        if (path === undefined) continue;
        next += 1;
        loop.receive({ type: 'switchTo', path, rolloutId: '' });
      }
    },
  });
  for (let index = 0; index < SEQUENCES; index += 1) {
    loop.receive({
      type: 'submit',
      ageMs: 0,
      spec: {
        sequenceId: String(index),
        promptTokenIds: (golden?.cases[index % 3]?.prompt ?? []).slice(0, 12 + index),
        generatedTokenIds: [],
        sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
        maxTokens: ANSWER_TOKENS,
        stopTokenIds: [],
        tenant: 'test',
        program: '',
        serviceTier: 'default',
        objectives: { ttftMs: 0, itlMs: 0 },
        ageLimits: null,
        cacheSalt: '',
      },
    });
  }
  loop.receive({ type: 'drain' });
  await loop.run();
  return { tokens, ended, changedTo, kvBlockCounts };
}

describe.skipIf(built === null || golden === null)('a live switch on the emulated CUDA device', () => {
  const open = async () => {
    const { modelPath = '' } = golden ?? {};
    const memory = { kvMemoryBytes: 512 * 1024, maxModelLenTokens: 256 };
    return cudaDevice(await loadModel(modelPath), { kind: 'cuda-emulated', ordinal: 0, ...memory });
  };

  it('weights from bf16 to fp8 to 4 bits and back: every stream ends by its length, and says that its bits are mixed', async () => {
    const device = await open();
    const { reference } = namedPaths(device.envelope);
    const paths = (['bf16-mma', 'fp8-gemv', 'int4-mma', 'bf16-mma'] as const).map(
      (name): ExecutionPath => ({ ...reference, linear: `linear.cuda-${name}`, tiles: 'graphs.use=0' }),
    );
    const { tokens, ended, changedTo } = await run(device, paths, 16);
    expect(changedTo).toEqual(paths.slice(1).map(pathId));
    expect(ended.map(({ reason }) => reason)).toEqual(Array.from({ length: SEQUENCES }, () => 'length'));
    for (const own of tokens.values()) expect(own).toHaveLength(ANSWER_TOKENS);
    expect(ended.every(({ isMixedNumerics }) => isMixedNumerics)).toBe(true);
    device.close();
  });

  it('keys and values from bf16 to fp8 and back: the pool grows and shrinks, blocks keep what they hold, rounded', async () => {
    const device = await open();
    const { reference } = namedPaths(device.envelope);
    const paths = (['bf16', 'fp8', 'bf16'] as const).map(
      (name): ExecutionPath => ({ ...reference, attention: `attention.cuda-${name}`, tiles: 'graphs.use=0' }),
    );
    const [plain] = paths;
    if (plain === undefined) throw new Error('no path');
    const alone = await run(device, [plain], 1e9);
    const { tokens, ended, changedTo, kvBlockCounts } = await run(device, paths, 24);
    expect(changedTo).toEqual(paths.slice(1).map(pathId));
    expect(ended.map(({ reason }) => reason)).toEqual(Array.from({ length: SEQUENCES }, () => 'length'));
    for (const own of tokens.values()) expect(own).toHaveLength(ANSWER_TOKENS);
    expect(kvBlockCounts).toEqual(new Set(paths.map((path) => kvBlockCountOf(device.envelope, path))));
    expect(kvBlockCounts.size).toBe(2);
    // Another format, other roundings: most tokens stay what they were, and those before the switch all do.
    let same = 0;
    for (const [sequenceId, own] of tokens) {
      const other = alone.tokens.get(sequenceId) ?? [];
      const differing = own.findIndex((tokenId, place) => tokenId !== other[place]);
      same += differing === -1 ? own.length : differing;
    }
    expect(same).toBeGreaterThan(0.5 * SEQUENCES * ANSWER_TOKENS);
    device.close();
  });

  it('calibrates a path of one format while another is live', async () => {
    const device = await open();
    const { reference } = namedPaths(device.envelope);
    await device.prepare(reference);
    const path = parsePath('reference,attention=attention.cuda-fp8,tiles=graphs.use=0', device.envelope);
    await device.prepare(path);
    const entry = {
      sequenceId: 's',
      tokenIds: [1, 2, 3],
      contextLength: 0,
      blockTable: [device.scratchBlockIds[0] ?? 0],
      isSampled: true,
      sampling: { temperature: 0, topP: 1, topK: 0, seed: 0 },
      kind: 'prefill',
    } as const;
    expect((await device.run(path, [entry], 'scratch')).sampledTokenIds[0]).toBeGreaterThanOrEqual(0);
    expect((await device.run(reference, [entry], 'scratch')).sampledTokenIds[0]).toBeGreaterThanOrEqual(0);
    await expect(device.run(path, [entry], 'scheduled')).rejects.toThrow(
      /is in bf16, and the path reads fp8/,
    );
    device.close();
  });
});
