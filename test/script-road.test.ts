/**
 * Road 3 by a script with the typed tRPC client and no browser: it reads what the optimizer proposes, rejects, proposes a path
 * of its own -> approve -> canary -> verdict -> ledger -> roll back, on the story model under streams that stay open.
 */
import { diffPaths, type ExecutionPath, numericsId } from '@variator/kernels/execution-path';
import { afterAll, beforeAll, expect, onTestFailed, test } from 'vitest';
import type { Proposal } from '../apps/engine/control/control-types.ts';
import { acrossSwitches, canaryStepCounts, newestPathId, switchTimes, telemetryOf } from './path-steps.ts';
import { type RunningProduct, root, startProduct } from './running-product.ts';
import { keepStreaming, type StreamingClients } from './streaming-clients.ts';
import { waitUntil } from './wait-until.ts';

let product: RunningProduct;
let clients: StreamingClients;

/** By portable kernels, several times as slow as those of this machine with the same bits: no neighbour can hide their cure. */
const portable = 'linear.int8-generic';

beforeAll(async () => {
  product = await startProduct({
    flags: [
      ...['--model', `${root}models/stories-5m`, '--threads', '1'],
      ...['--path', 'balanced,maxRunningCount=1'],
    ],
  });
  clients = keepStreaming(product, { clientCount: 12, maxTokens: 40 });
});

afterAll(async () => {
  await clients?.stop();
  await product?.stop();
  product?.removeData();
});

test('a script approves a proposal, sees its verdict and takes it back, and no stream notices', async () => {
  onTestFailed(() => console.log(product.output().slice(-6000)));
  const { admin } = product;
  const telemetry = telemetryOf(product.dataDir);
  const policy = await admin.objectives.set.mutate({
    objectives: { ttftMs: 10_000, itlMs: 500 },
    canary: {
      blockDurationMs: 1000,
      leastPairCount: 3,
      leastPairCountToPromote: 3,
      mostPairCount: 30,
      leastStepsPerBlock: 3,
      itlGuardRatio: 10,
    },
  });
  expect(policy).toMatchObject({ autonomy: 'oneClick', canary: { blockDurationMs: 1000 } });
  const started = await onlyWorker();
  expect(started.path.maxRunningCount).toBe(1);

  const suggested = await waitUntil('a proposal of the optimizer', 120_000, async () =>
    (await admin.proposals.list.query({ limit: 20 })).find(({ state }) => state === 'open'),
  );
  expect(suggested.fromPathId).toBe(started.pathId);
  expect(suggested.title).toMatch(/: .*device ms/);
  expect(suggested.reason).toMatch(/requests of the last .* were replayed through the scheduler/);
  for (const { now, predicted, change } of suggested.metrics) {
    for (const { value, low, high } of [now, predicted, change]) {
      expect(low).toBeLessThanOrEqual(value);
      expect(value).toBeLessThanOrEqual(high);
    }
  }
  await rejectAnother(suggested);

  const path = `balanced,linear=${portable},maxRunningCount=4`;
  const { pathId: firstPathId } = await admin.workers.switchTo.mutate({ workerId: started.workerId, path });
  const worker = await onlyWorker();
  expect(worker).toMatchObject({ pathId: firstPathId, path: { linear: portable } });
  const quicker = worker.envelope.linearVariants
    .map((linear) => ({ ...worker.path, linear }))
    .find((path) => path.linear !== portable && numericsId(path) === numericsId(worker.path));
  if (quicker === undefined) throw new Error('This machine has no other kernels of the same bits.');
  const proposal = await proposeOwn({ ...suggested, from: worker.path }, quicker);
  expect(proposal.fromPathId).toBe(firstPathId);

  const { rolloutId } = await admin.proposals.approve.mutate({ proposalId: proposal.proposalId });
  expect(await admin.proposals.approve.mutate({ proposalId: proposal.proposalId })).toEqual({ rolloutId });
  const ended = await waitUntil('the canary to end', 90_000, async () => {
    const progress = await admin.rollouts.progress.query({ rolloutId });
    return progress.state !== 'warming' && progress.state !== 'canary' && progress;
  });
  expect(ended, ended.message).toMatchObject({ state: 'live', verdict: 'better', canRollBack: true });
  expect(ended.checkSummary).toMatch(/^Equal tokens/);
  expect(ended.pairs.length).toBeGreaterThanOrEqual(3);
  expect(ended.confidence?.high).toBeLessThan(0);
  await waitUntil('step rows on the new path', 15_000, async () => {
    return (await newestPathId(telemetry, ended.endedAt ?? Date.now())) === proposal.toPathId;
  });
  expect((await onlyWorker()).pathId).toBe(proposal.toPathId);
  const steps = await canaryStepCounts(telemetry, rolloutId);
  expect([...steps.keys()].sort()).toEqual([proposal.fromPathId, proposal.toPathId].sort());

  const entry = await waitUntil('the ledger entry', 10_000, async () =>
    (await admin.ledger.list.query({ limit: 10 })).at(0),
  );
  expect(entry).toMatchObject({ rolloutId, verdict: 'better', state: 'live', toPathId: proposal.toPathId });
  const cost = entry.rows.find(({ metric }) => metric === 'deviceMsPerRequest');
  expect(cost?.predictedChange).toBeLessThan(0);
  expect(cost?.realisedHigh).toBeLessThan(0);

  // TTFT is told by before and after alone, once enough streams have begun on either side.
  const told = await waitUntil('TTFT before and after', 45_000, async () => {
    const [live] = await admin.ledger.list.query({ limit: 10 });
    const row = live?.rows.find(({ metric }) => metric === 'ttftP95Ms');
    return row !== undefined && row.realisedChange !== null && row;
  });
  expect(told).toMatchObject({ realisedLow: null, realisedHigh: null });

  const back = await admin.rollouts.rollBack.mutate({ rolloutId });
  expect(back).toMatchObject({ state: 'rolledBack', canRollBack: false });
  await waitUntil('step rows on the first path again', 15_000, async () => {
    return (await newestPathId(telemetry, back.endedAt ?? Date.now())) === firstPathId;
  });
  expect((await onlyWorker()).pathId).toBe(firstPathId);
  expect((await admin.ledger.list.query({ limit: 10 }))[0]).toMatchObject({ rolloutId, state: 'rolledBack' });

  await clients.stop();
  expect(clients.records.filter(({ fault }) => fault !== '')).toEqual([]);
  expect(clients.records.every(({ finishReason }) => finishReason === 'length')).toBe(true);
  const across = acrossSwitches(clients.records, await switchTimes(telemetry));
  expect(across.length).toBeGreaterThan(5);
  // The paths share their numerics, so a stream open across a change has the very same text as one before it.
  for (const { prompt, text } of across) {
    expect(text).toBe(clients.records.find((record) => record.prompt === prompt)?.text);
  }
  await telemetry.close();
  expect(await product.stop()).toBe(0);
  expect(product.processes()).toEqual([]);
}, 400_000);

async function onlyWorker() {
  const [worker] = await product.admin.workers.list.query();
  if (!worker) throw new Error('No worker has joined.');
  return worker;
}

/** A proposal of the script's own, with the optimizer's figures and evidence. */
async function proposeOwn(model: Proposal, to: ExecutionPath): Promise<Proposal> {
  const { workerId, from, title, reason, metrics, evidence } = model;
  const changes = diffPaths(from, to);
  return await product.admin.proposals.create.mutate({
    ...{ workerId, from, to, changes, title, reason, metrics, evidence },
  });
}

/** Turned down: it stays so, and the worker's path with it. */
async function rejectAnother(model: Proposal): Promise<void> {
  const { admin } = product;
  const { proposalId } = await proposeOwn(model, { ...model.from, maxRunningCount: 2 });
  const rejected = await admin.proposals.reject.mutate({ proposalId, reason: 'Two are too few.' });
  expect(rejected).toMatchObject({ state: 'rejected', decidedBy: 'test', rolloutId: '' });
  await expect(admin.proposals.approve.mutate({ proposalId })).rejects.toThrow(/is rejected/);
  expect((await onlyWorker()).pathId).toBe(model.fromPathId);
}
