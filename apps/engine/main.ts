/**
 * The gateway process: builds each part once, joins them, listens, drains. Started by the supervisor; the only file that
 * knows every part. Two ports: OpenAI's endpoint for clients, tRPC for people and scripts.
 *
 *   http -> generation -> fleet -> (link) -> worker            recorder -> ClickHouse            api -> control -> fleet
 */
import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTelemetryClient } from '@variator/clickhouse/client';
import { migrate } from '@variator/clickhouse/migrate';
import { latestFits } from '@variator/clickhouse/queries/fits';
import {
  type Envelope,
  type ExecutionPath,
  PathError,
  parsePath,
  pathFaults,
} from '@variator/kernels/execution-path';
import { KvPlanError, kvPlan } from '@variator/kernels/kv-plan';
import { loadModel } from '@variator/kernels/model';
import { ModelError } from '@variator/kernels/model/model-error';
import type { ModelShape } from '@variator/kernels/model/model-shape';
import { createAdminServer } from './api/admin-server.ts';
import { assertSafeToListen, UnsafeListenError } from './api/safe-to-listen.ts';
import { BatchesStoreError } from './batches/batches-store.ts';
import { fleetCapacity } from './batches/fleet-capacity.ts';
import { openBatches } from './batches/open-batches.ts';
import { watchParent } from './cli/parent-watch.ts';
import { CANNOT_RUN, FATAL_EXIT_CODE } from './cli/part.ts';
import { ConfigError } from './config/config-error.ts';
import { type Config, readConfig } from './config.ts';
import { ControlError } from './control/control-error.ts';
import { openControl } from './control/open-control.ts';
import type { Joining } from './fleet/link-door.ts';
import { workerFleet } from './fleet/worker-fleet.ts';
import { WorkerProgress } from './fleet/worker-progress.ts';
import { createGeneration } from './generation/generation.ts';
import { createInferenceServer } from './http/server.ts';
import { tenantSecret } from './http/tenant-secret.ts';
import { createMetrics } from './telemetry/metrics.ts';
import { createRecorder } from './telemetry/recorder.ts';
import { openTraces } from './telemetry/traces.ts';

/** Streams under way may go on for this long after SIGTERM; then they end with an error event. */
const DRAIN_MS = 20_000;
const LAST_ROWS_MS = 3000;
/** A line of a batch runs again after the next start, so that it is not waited for as a client is. */
const LAST_LINES_MS = 2000;

const { version } = JSON.parse(readFileSync(new URL('package.json', import.meta.url), 'utf8')) as {
  version: string;
};
const now = () => performance.timeOrigin + performance.now();
const log = (line: string) => console.log(line);

async function main(config: Config): Promise<void> {
  const { host, adminKey, apiKeys } = config;
  assertSafeToListen({ host, adminKey, apiKey: apiKeys[0]?.key ?? null });
  if (config.model === null || config.clickhouseUrl === null) {
    throw new ConfigError('The gateway needs --model and VARIATOR_CLICKHOUSE_URL; npm start gives both.');
  }
  const model = await loadModel(config.model);
  const { maxModelLenTokens } =
    config.device.kind === 'cpu' ? kvPlan(model.shape, config) : ownMemoryPlan(model.shape, config);
  const telemetry = createTelemetryClient(config.clickhouseUrl);
  const recorder = createRecorder({
    client: telemetry,
    folder: join(config.dataDir, 'spool'),
    maxSpoolBytes: config.spoolLimitBytes,
    bootId: randomUUID(),
    migrate: prepareStore,
    log,
  });
  /** Tables first; then fits of earlier days, which are good until the optimizer has better ones. One at a time. */
  let preparing: Promise<void> | null = null;
  function prepareStore(): Promise<void> {
    preparing ??= (async () => {
      await migrate(telemetry, { clusterName: config.clickhouseCluster });
      for (const fit of await latestFits(telemetry)) {
        if (fit.modelHash === model.modelHash) fleet.useFit(fit);
      }
    })().finally(() => {
      preparing = null;
    });
    return preparing;
  }
  const generation = createGeneration({
    tokenizer: model.tokenizer,
    generationDefaults: model.generation,
    modelId: model.modelId,
    maxModelLenTokens,
    vocabularySize: model.shape.vocabularySize,
    threadCount: 1,
  });
  /** The path asked for at the start counts as promoted for each worker; after that, what was promoted last counts. */
  const askedWorkerIds = new Set<string>();
  function pathFor(
    workerId: string,
    hello: { path: ExecutionPath; envelope: Envelope },
  ): ExecutionPath | null {
    if (config.path !== null && !askedWorkerIds.has(workerId)) {
      askedWorkerIds.add(workerId);
      const path = parsedPath(config.path, hello.envelope);
      if (path) control.switchWorkerTo(workerId, path, 'start').catch((error: Error) => log(error.message));
      return path;
    }
    const promoted = control.livePathFor(workerId);
    // Another machine or model may not be able to run what was promoted on the last one.
    return promoted !== null && pathFaults(promoted, hello.envelope).length === 0 ? promoted : null;
  }
  const servedModelNames = config.servedModelNames ?? [model.modelId];
  const metrics = createMetrics({
    modelName: servedModelNames[0] ?? model.modelId,
    maxModelLenTokens,
    workers: () => fleet.workers(),
    telemetry: recorder,
  });
  const modelName = servedModelNames[0] ?? model.modelId;
  const traces =
    config.otlpEndpoint === null
      ? null
      : await openTraces({ endpoint: config.otlpEndpoint, modelName, version });
  const progress = new WorkerProgress();
  /** Null where a worker that joined from another machine has not what this one was asked for. */
  function parsedPath(text: string, envelope: Envelope): ExecutionPath | null {
    try {
      return parsePath(text, envelope);
    } catch (error) {
      if (!(error instanceof PathError)) throw error;
      log(error.message);
      return null;
    }
  }
  const fleet = workerFleet({
    linkPath: config.linkPath,
    joining: joiningOf(config),
    model: { modelHash: model.modelHash, maxModelLenTokens },
    now,
    log,
    onRows: (rows) => {
      for (const row of rows) {
        recorder.record('steps', row);
        metrics.stepSettled(row);
        progress.stepSettled(row);
      }
    },
    pathFor,
  });
  const control = await openControl({
    file: join(config.dataDir, 'control.db'),
    fleet,
    encode: (text) => generation.encode(text),
    deviceUsdPerHour: config.deviceUsdPerHour,
    now,
    log,
  });
  const batches = await openBatches({
    folder: join(config.dataDir, 'batches'),
    limits: {
      maxFileBytes: config.maxBatchFileBytes,
      maxLineCount: config.maxBatchLineCount,
      maxStoredBytes: config.maxBatchStorageBytes,
    },
    capacity: () => fleetCapacity(fleet.workers()),
    now,
    log,
  });
  const inference = createInferenceServer({
    generation,
    fleet,
    recorder: {
      record(table, row) {
        recorder.record(table, row);
        metrics.requestEnded(row);
      },
      refused: (row) => recorder.record('requests', row),
      tokenGap: metrics.tokenGap,
    },
    metrics,
    traces,
    objectives: () => control.policy().objectives,
    batches,
    servedModelNames,
    version,
    stalledReason: () => progress.stalledReason(fleet.workers(), now()),
    apiKeys: config.apiKeys,
    isTenantHeaderTrusted: config.isTenantHeaderTrusted,
    tenantSecret: tenantSecret(config.dataDir),
    limits: {
      maxQueuedRequestCount: config.maxQueuedRequestCount,
      maxQueuedTokenCount: config.maxQueuedTokenCount,
      tenantQueueShare: config.tenantQueueShare,
      maxQueueWaitMs: config.maxQueueWaitMs,
      requestTimeoutMs: config.requestTimeoutMs,
    },
    now,
    log,
  });
  const admin = createAdminServer({
    fleet,
    control,
    telemetry,
    recorder,
    modelId: model.modelId,
    host: config.host,
    port: config.adminPort,
    adminKey: config.adminKey,
    now,
    log,
  });

  let isEnding = false;
  watchParent(() => {
    if (isEnding) return;
    isEnding = true;
    end().then(
      () => process.exit(0),
      (error: Error) => {
        console.error(error.stack);
        process.exit(1);
      },
    );
  });

  /** From the door inwards: no new requests, then open streams, then the worker's last rows, then the store. */
  async function end(): Promise<void> {
    await Promise.all([inference.drain(DRAIN_MS), batches.close(LAST_LINES_MS)]);
    await control.close();
    await fleet.drain(0);
    await Promise.all([inference.close(), admin.close(), fleet.close()]);
    await Promise.all([recorder.close(LAST_ROWS_MS), traces?.close()]);
    await Promise.all([generation.close(), telemetry.close()]);
  }

  // Pages and the optimizer ask before the first row is written; a silent ClickHouse is the recorder's to wait for.
  prepareStore().catch((error: Error) => log(`telemetry waits: ${error.message}`));
  await generation.ready();
  await fleet.listen();
  await admin.listen();
  await batches.start(inference.lines);
  await inference.listen({ host: config.host, port: config.port });
}

/** A GPU and a simulated machine bring their own memory: a worker that has not enough for this says so. */
const ownMemoryPlan = ({ maxPositionCount }: ModelShape, { maxModelLenTokens }: Config) => ({
  maxModelLenTokens: Math.min(maxPositionCount, maxModelLenTokens ?? maxPositionCount),
});

function joiningOf({ joinListen, joinToken }: Config): Joining | null {
  if (joinListen === null) return null;
  if (joinToken === null)
    throw new ConfigError('--join-listen needs VARIATOR_JOIN_TOKEN; npm start makes one.');
  return { ...joinListen, token: joinToken };
}

try {
  await main(readConfig(process.argv.slice(2)));
} catch (error) {
  const isFinal =
    [ConfigError, ModelError, KvPlanError, UnsafeListenError, ControlError, BatchesStoreError].some(
      (kind) => error instanceof kind,
    ) || (error as NodeJS.ErrnoException).code === 'EADDRINUSE';
  console.error(isFinal ? `${CANNOT_RUN}${(error as Error).message}` : (error as Error).stack);
  process.exit(isFinal ? FATAL_EXIT_CODE : 1);
}
