/**
 * What is wrong with a frame from a worker. A worker holds the join token, so this keeps faults apart from malice: one that
 * is broken, or of another build, is lost with a sentence and takes neither the gateway nor a table's rows with it. Pure;
 * called by link-door.ts and worker-fleet.ts before a frame is acted on.
 */
import { isStepRow } from '@variator/clickhouse/step-row';
import { z } from 'zod';
import type { JoinedWorker } from './joined-worker.ts';
import type { WorkerFrame } from './link-frames.ts';

const count = z.int().min(0);
const name = z.string().min(1).max(200);
const executionPath = z.object({
  linear: name,
  attention: name,
  threadCount: z.int().min(1),
  tokenBudget: z.int().min(1),
  maxRunningCount: z.int().min(1),
  draftTokenCount: count,
  tiles: name,
  splitTokens: z.int().min(1),
});
const envelope = z.object({
  deviceKind: name,
  deviceName: z.string().max(500),
  modelId: z.string().max(500),
  modelHash: name,
  linearVariants: z.array(name).min(1).max(200),
  attentionVariants: z.array(name).min(1).max(200),
  threadCount: z.int().min(1),
  kvBlockCount: z
    .int()
    .min(1)
    .max(2 ** 28),
  kvBlockCounts: z.record(
    z.string(),
    z
      .int()
      .min(1)
      .max(2 ** 28),
  ),
  kvBlockSize: z
    .int()
    .min(1)
    .max(2 ** 16),
  maxModelLenTokens: z.int().min(1),
  maxTokenBudget: z.int().min(1),
  maxRunningCount: z.int().min(1),
  maxDraftTokenCount: count,
  vocabularySize: z.int().min(1),
  layerCount: count,
  headCount: count,
  headSize: count,
  activeParameterCount: count,
  weightBytes: z.record(z.string(), z.number()),
  kvBytesPerToken: z.number().min(0),
  probe: z.object({
    cpuModel: z.string().max(500),
    coreCount: count,
    features: z.array(z.string().max(100)).max(500),
    readBytesPerSecond: z.number(),
    float32FlopsPerSecond: z.number(),
    int8OpsPerSecond: z.number(),
  }),
});
const tokenLogprobs = z.object({
  logprob: z.number(),
  top: z.array(z.tuple([count, z.number()])).max(100),
});
const account = z.object({
  prefillDeviceMs: z.number(),
  decodeDeviceMs: z.number(),
  speculationWasteDeviceMs: z.number(),
  recomputeDeviceMs: z.number(),
  fitId: z.string().max(200),
  fitCount: count,
});
const guesses = z.object({
  watchedTokenCount: count,
  guessedTokenCount: count,
  rightGuessCount: count,
  rightRunCount: count,
});
const start = z.object({ sequenceId: name, cachedTokenCount: count, queueMs: z.number() });
const told = z.number().nullable();
const deviceTelemetry = z.object({
  smClockMhz: told,
  memoryClockMhz: told,
  powerWatts: told,
  energyJoules: told,
  temperatureCelsius: told,
  memoryUsedBytes: told,
  memoryBytes: told,
});
const callId = name;
const fault = z.string().max(10_000);
const frames = {
  hello: z.object({
    version: count,
    workerId: z.string().regex(/^[\w.-]{1,64}$/),
    bootId: name,
    pid: count,
    envelope,
    path: executionPath,
  }),
  ended: z.object({
    ended: z.object({
      sequenceId: name,
      reason: z.enum(['stop', 'length', 'cancelled', 'error', 'expired']),
      message: z.string().max(10_000),
      account,
      promptTokenCount: count,
      cachedTokenCount: count,
      completionTokenCount: count,
      preemptionCount: count,
      speculatedTokenCount: count,
      acceptedTokenCount: count,
      guesses,
      queueMs: z.number(),
      isMixedNumerics: z.boolean(),
      promptLogprobs: z.array(tokenLogprobs).optional(),
    }),
    pathId: name,
  }),
  heartbeat: z.object({
    runningCount: count,
    waitingCount: count,
    kvUsedBlockCount: count,
    pathId: name,
    deviceTelemetry: deviceTelemetry.nullable(),
  }),
  pathChanged: z.object({ path: executionPath, stepId: count, rolloutId: z.string().max(200) }),
  switchRefused: z.object({ pathId: name, fault }),
  prepared: z.object({ callId, faults: z.array(fault).max(100), prepareMs: z.number() }),
  checked: z.object({ callId, outputs: z.array(z.array(count)), fault }),
  calibrated: z.object({ callId, stepCount: count, deviceMs: z.number(), fault }),
  alternated: z.object({ rolloutId: name, completedBlockCount: count }),
} satisfies Partial<Record<WorkerFrame['type'], z.ZodType>>;

/** @returns a sentence's end, as in "it sent a hello whose ..."; null where it is a hello of this version. */
export function helloFault(value: unknown): string | null {
  return schemaFault('hello', value);
}

/** @returns what is wrong, to follow "it sent"; null where the frame may be acted on */
export function workerFrameFault(value: unknown, worker: JoinedWorker): string | null {
  const type = (value as { type?: unknown } | null)?.type;
  switch (type) {
    case 'tokens':
      return isTokens(value as object, worker.hello.envelope.vocabularySize) ? null : 'tokens that are none';
    case 'stepRows': {
      const { rows } = value as { rows?: unknown };
      const isOwn = (row: { workerId: string; bootId: string }) =>
        row.workerId === worker.hello.workerId && row.bootId === worker.hello.bootId;
      return Array.isArray(rows) && rows.every((row) => isStepRow(row) && isOwn(row))
        ? null
        : 'rows that are none of its steps';
    }
    case 'blocks': {
      const { entered, left } = value as { entered?: unknown; left?: unknown };
      return isHashes(entered) && isHashes(left) ? null : 'blocks without hashes';
    }
    case 'hello':
      return 'hello twice';
    default:
      return typeof type === 'string' && Object.hasOwn(frames, type)
        ? schemaFault(type as keyof typeof frames, value)
        : 'a frame of an unknown type';
  }
}

function schemaFault(type: keyof typeof frames, value: unknown): string | null {
  const parsed = frames[type].safeParse(value);
  if (parsed.success) return null;
  const [issue] = parsed.error.issues;
  return `${type} with a wrong ${issue?.path.join('.') || 'shape'}`;
}

/** By hand: a frame a step, with every stream's token, passes here. */
function isTokens(frame: { events?: unknown; accounts?: unknown; starts?: unknown }, vocabularySize: number) {
  const { events, accounts, starts } = frame;
  if (!Array.isArray(events) || !Array.isArray(accounts) || !Array.isArray(starts)) return false;
  return (
    accounts.length === events.length &&
    events.every((event) => isTokenEvent(event, vocabularySize)) &&
    accounts.every(isAccount) &&
    starts.every((each) => start.safeParse(each).success)
  );
}

function isTokenEvent(event: unknown, vocabularySize: number): boolean {
  if (typeof event !== 'object' || event === null) return false;
  const { sequenceId, tokenId, index, logprobs, promptLogprobs } = event as Record<string, unknown>;
  return (
    typeof sequenceId === 'string' &&
    Number.isInteger(tokenId) &&
    (tokenId as number) >= 0 &&
    (tokenId as number) < vocabularySize &&
    Number.isInteger(index) &&
    (logprobs === undefined || tokenLogprobs.safeParse(logprobs).success) &&
    (promptLogprobs === undefined || z.array(tokenLogprobs).safeParse(promptLogprobs).success)
  );
}

function isAccount(value: unknown): boolean {
  if (typeof value !== 'object' || value === null) return false;
  const each = value as Record<string, unknown>;
  return (
    Number.isFinite(each.prefillDeviceMs) &&
    Number.isFinite(each.decodeDeviceMs) &&
    Number.isFinite(each.speculationWasteDeviceMs) &&
    Number.isFinite(each.recomputeDeviceMs) &&
    typeof each.fitId === 'string' &&
    Number.isInteger(each.fitCount)
  );
}

const isHashes = (value: unknown): boolean =>
  Array.isArray(value) && value.every((hash) => typeof hash === 'string' && hash.length <= 64);
