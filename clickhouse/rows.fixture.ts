/**
 * For tests: rows with every column, and a real embedded ClickHouse in a folder that goes away. Never imported by the
 * product.
 */
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { buildClickHouseHost } from './build.mjs';
import { type EmbeddedServer, startEmbeddedServer } from './embedded-server.ts';
import type { RequestRow } from './request-row.ts';
import type { StepRow } from './step-row.ts';

export function stepRow(changes: Partial<StepRow>): StepRow {
  return {
    startedAt: 0,
    workerId: 'w1',
    bootId: 'boot',
    stepId: 1,
    kind: 'serve',
    deviceKind: 'cpu',
    modelId: 'model',
    modelHash: 'hash',
    pathId: 'pathA',
    kernelsId: 'kernelsA',
    numericsId: 'numericsA',
    rolloutId: '',
    blockIndex: -1,
    isSettling: false,
    tokenCount: 1,
    decodeSequenceCount: 1,
    prefillSequenceCount: 0,
    prefillTokenCount: 0,
    prefillContextTokens: 0,
    prefillLengthVariance: 0,
    decodeContextTokens: 10,
    prefillAttention: 0,
    runningCount: 1,
    waitingCount: 0,
    waitingTokenCount: 0,
    kvUsedBlockCount: 1,
    kvBlockCount: 64,
    evictedBlockCount: 0,
    preemptionCount: 0,
    cachedTokenCount: 0,
    emittedTokenCount: 0,
    draftedTokenCount: 0,
    acceptedDraftCount: 0,
    itlMeanMs: 0,
    itlMaxMs: 0,
    itlTokenCount: 0,
    deviceMs: 1,
    wallMs: 1,
    scheduleMs: 0.1,
    predictedMs: 0,
    fitId: '',
    foreignCpuShare: 0,
    energyJoules: 0,
    powerWatts: 0,
    smClockMhz: 0,
    prefillDeviceMs: 0,
    decodeDeviceMs: 0,
    speculationWasteDeviceMs: 0,
    recomputeDeviceMs: 0,
    ...changes,
  };
}

export function requestRow(changes: Partial<RequestRow>): RequestRow {
  return {
    arrivedAt: 0,
    requestId: 'request',
    endpoint: '/v1/chat/completions',
    modelId: 'model',
    tenant: 'default',
    keyId: '',
    session: '',
    program: '',
    serviceTierAsked: '',
    serviceTier: 'default',
    serviceTierReason: '',
    isStreamed: true,
    status: 200,
    outcome: 'ok',
    finishReason: 'stop',
    errorCode: '',
    workerId: 'w1',
    pathId: 'pathA',
    isMixedNumerics: false,
    promptTokenCount: 0,
    cachedTokenCount: 0,
    completionTokenCount: 0,
    speculatedTokenCount: 0,
    acceptedTokenCount: 0,
    watchedTokenCount: 0,
    guessedTokenCount: 0,
    rightGuessCount: 0,
    rightRunCount: 0,
    queueMs: 0,
    prefillMs: 0,
    decodeMs: 0,
    ttftMs: 0,
    tpotMs: 0,
    itlP95Ms: 0,
    itlMaxMs: 0,
    e2eMs: 0,
    preemptionCount: 0,
    resumeCount: 0,
    prefillDeviceMs: 0,
    decodeDeviceMs: 0,
    speculationWasteDeviceMs: 0,
    recomputeDeviceMs: 0,
    fitId: '',
    fitCount: 0,
    isAccountFinal: true,
    ttftObjectiveMs: 2000,
    itlObjectiveMs: 100,
    isWithinObjectives: true,
    ...changes,
  };
}

export interface TestServer {
  readonly server: EmbeddedServer;
  readonly dataDir: string;
  remove(): Promise<void>;
}

export async function startTestServer(): Promise<TestServer> {
  await buildClickHouseHost();
  const dataDir = await mkdtemp(join(tmpdir(), 'variator-clickhouse-'));
  const server = await startEmbeddedServer({ dataDir });
  return {
    server,
    dataDir,
    async remove() {
      await server.stop();
      await rm(dataDir, { recursive: true, force: true });
    },
  };
}
