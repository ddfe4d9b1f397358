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
import { cudaDevice } from './cuda-device.ts';
import type { Device } from './device.ts';
import { answerAcrossSwitches, sameShare } from './live-switch.fixture.ts';

vi.setConfig({ testTimeout: 300_000, hookTimeout: 300_000 });

const built = await buildCuda().catch((error: Error) => {
  console.warn(`SKIPPED: the CUDA kernels on the emulated device (${error.message})`);
  return null;
});
const golden = readGolden('llama-gqa');
const SEQUENCES = 4;
const ANSWER_TOKENS = 20;

const run = (device: Device, paths: readonly ExecutionPath[], tokensPerPath: number) =>
  answerAcrossSwitches({
    ...{ device, paths, tokensPerPath, answerTokens: ANSWER_TOKENS },
    prompts: Array.from({ length: SEQUENCES }, (_, index) =>
      (golden?.cases[index % 3]?.prompt ?? []).slice(0, 12 + index),
    ),
  });

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
    const switched = await run(device, paths, 24);
    const { tokens, ended, changedTo, rows } = switched;
    expect(changedTo).toEqual(paths.slice(1).map(pathId));
    expect(ended.map(({ reason }) => reason)).toEqual(Array.from({ length: SEQUENCES }, () => 'length'));
    for (const own of tokens.values()) expect(own).toHaveLength(ANSWER_TOKENS);
    const kvBlockCounts = new Set(rows.map(({ kvBlockCount }) => kvBlockCount));
    expect(kvBlockCounts).toEqual(new Set(paths.map((path) => kvBlockCountOf(device.envelope, path))));
    expect(kvBlockCounts.size).toBe(2);
    // Another format, other roundings: most tokens stay what they were, and those before the switch all do.
    expect(sameShare(switched, alone)).toBeGreaterThan(0.5);
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
