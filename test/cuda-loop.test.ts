/**
 * The whole loop on a CUDA worker, with the emulated device in the GPU's place: the product is started with it, answers a
 * client, and a proposal of another CUDA path is approved, checked, tried and written to the ledger under an open stream.
 */
import { afterAll, beforeAll, describe, expect, onTestFailed, test } from 'vitest';
import { buildCuda } from '../packages/kernels/build-cuda.mjs';
import { readGolden } from '../packages/kernels/golden-files.fixture.ts';
import { canaryStepCounts, newestPathId, telemetryOf } from './path-steps.ts';
import { type RunningProduct, startProduct } from './running-product.ts';
import { keepStreaming } from './streaming-clients.ts';
import { waitUntil } from './wait-until.ts';

const built = await buildCuda().catch((error: Error) => {
  console.warn(`SKIPPED: the whole loop on the emulated CUDA device (${error.message})`);
  return null;
});
const golden = readGolden('llama-gqa');

describe.skipIf(built === null || golden === null)('the product on the emulated CUDA device', () => {
  let product: RunningProduct;
  beforeAll(async () => {
    product = await startProduct({
      flags: [
        ...['--model', golden?.modelPath ?? '', '--device', 'cuda-emulated:0', '--kv-memory', '2MiB'],
        ...['--max-model-len', '256', '--path', 'balanced,maxRunningCount=4'],
      ],
    });
  });
  afterAll(async () => {
    await product?.stop();
    product?.removeData();
  });

  test('answers, and goes to another CUDA path by a proposal, with its row in the ledger', async () => {
    onTestFailed(() => console.log(product.output().slice(-6000)));
    const { admin } = product;
    const [worker] = await admin.workers.list.query();
    if (worker === undefined) throw new Error('No worker has joined.');
    expect(worker.envelope.deviceKind).toBe('cuda-emulated');
    expect(worker.path.linear).toBe('linear.cuda-bf16-mma');
    const summary = await admin.overview.summary.query({ windowMs: 60_000 });
    expect(summary.emulatedDeviceNames).toEqual([expect.stringContaining('emulated')]);
    expect(summary.simulatedDeviceNames).toEqual([]);
    expect(product.output()).toContain('Emulated: the CUDA kernels run on the CPU, for tests');

    await admin.objectives.set.mutate({
      objectives: { ttftMs: 60_000, itlMs: 10_000 },
      canary: {
        blockDurationMs: 1500,
        leastPairCount: 2,
        leastPairCountToPromote: 2,
        mostPairCount: 2,
        leastStepsPerBlock: 2,
        itlGuardRatio: 10,
      },
    });
    const clients = keepStreaming(product, { clientCount: 2, maxTokens: 12 });
    const telemetry = telemetryOf(product.dataDir);
    const from = worker.path;
    const to = { ...from, tiles: 'mma.tile=3+graphs.use=0' };
    const now = Date.now();
    const { proposalId, toPathId } = await admin.proposals.create.mutate({
      ...{ workerId: worker.workerId, from, to, metrics: [] },
      changes: [{ setting: 'tiles', from: from.tiles, to: to.tiles }],
      title: 'Another tile, and no graphs',
      reason: 'A test of the road.',
      evidence: {
        ...{ windowStartedAt: now - 1000, windowEndedAt: now, requestCount: 0, stepCount: 0 },
        ...{ regimeId: '', regimeName: '', fitIds: [] },
      },
    });
    const { rolloutId } = await admin.proposals.approve.mutate({ proposalId });
    const ended = await waitUntil('the canary to end', 120_000, async () => {
      const progress = await admin.rollouts.progress.query({ rolloutId });
      return progress.state !== 'warming' && progress.state !== 'canary' && progress;
    });
    // Bits are shared, so tokens are; which is quicker in an emulator says nothing.
    expect(ended.checkSummary, ended.message).toMatch(/^Equal tokens/);
    expect(ended.pairs).toHaveLength(2);
    const steps = await canaryStepCounts(telemetry, rolloutId);
    expect([...steps.keys()].sort()).toEqual([worker.pathId, toPathId].sort());
    const [entry] = await admin.ledger.list.query({ limit: 10 });
    expect(entry).toMatchObject({ rolloutId, state: ended.state, toPathId });
    await waitUntil('step rows on the path that won', 30_000, async () =>
      [worker.pathId, toPathId].includes((await newestPathId(telemetry, ended.endedAt ?? now)) ?? ''),
    );
    await clients.stop();
    expect(clients.records.filter(({ fault }) => fault !== '')).toEqual([]);
    expect(clients.records.length).toBeGreaterThan(0);
    for (const { prompt, text } of clients.records)
      expect(text).toBe(clients.records.find((record) => record.prompt === prompt)?.text);
    await telemetry.close();
    expect(await product.stop()).toBe(0);
    expect(product.processes()).toEqual([]);
  }, 200_000);
});
