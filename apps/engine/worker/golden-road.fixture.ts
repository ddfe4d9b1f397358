/**
 * The worker's own road without its processes: the scheduler composes, the CPU device computes, paths may change on the
 * way. Used by golden-road.test.ts and by `npm run bench -- serve golden`.
 */
import { kvBlockCountOf, numericsId, parsePath } from '@variator/kernels/execution-path';
import { loadModel } from '@variator/kernels/model';
import { Scheduler } from '@variator/scheduler/scheduler';
import { cpuDevice } from './cpu-device.ts';
import type { Device } from './device.ts';

export interface Asked {
  readonly prompt: readonly number[];
  /** With those generated already. */
  readonly maxTokens: number;
  readonly generated?: readonly number[];
  readonly temperature?: number;
}

/** Paths as on the command line: `reference,tokenBudget=7`. */
export interface Conditions {
  readonly path: string;
  /** Taken on after every so many steps, and given back after as many. */
  readonly otherPath?: string;
  readonly switchSteps?: number;
  readonly blockCount?: number;
  /** Sequences are submitted one after the other, each when the one before has ended. */
  readonly isOneByOne?: boolean;
}

export interface RoadOutcome {
  /** What was generated here, in the order asked. */
  readonly outputs: number[][];
  readonly preemptionCount: number;
  readonly acceptedDraftCount: number;
  readonly stepCount: number;
  readonly cachedTokenCount: number;
  readonly largestBatch: number;
  readonly switchCount: number;
}

export async function openRoadDevice(modelPath: string, threadCount = 2): Promise<Device> {
  const options = {
    threadCount,
    kvMemoryBytes: 256 * 1024 ** 2,
    maxModelLenTokens: 1024,
    isa: 'all',
    packedWeightsDir: null,
  } as const;
  return cpuDevice(await loadModel(modelPath), options);
}

/** @throws Error when a sequence is refused or ends otherwise than by its length */
export async function runRoad(
  device: Device,
  asked: readonly Asked[],
  conditions: Conditions,
): Promise<RoadOutcome> {
  const { envelope } = device;
  const first = parsePath(conditions.path, envelope);
  const other = parsePath(conditions.otherPath ?? conditions.path, envelope);
  if (numericsId(first) !== numericsId(other)) throw new Error('the two paths compute other bits');
  await device.prepare(first);
  await device.keepKvFor(first, []);
  let path = first;
  const scheduler = new Scheduler({
    blockCount: conditions.blockCount ?? kvBlockCountOf(envelope, first),
    blockSize: envelope.kvBlockSize,
    maxModelLenTokens: envelope.maxModelLenTokens,
    limits: path,
    numericsId: numericsId(path),
  });
  const outputs = asked.map((): number[] => []);
  const seen = {
    preemptionCount: 0,
    cachedTokenCount: 0,
    acceptedDraftCount: 0,
    stepCount: 0,
    largestBatch: 0,
    switchCount: 0,
  };
  let now = 0;
  const submit = (index: number) => {
    const question = asked[index];
    if (!question) return;
    const refused = scheduler.submit(
      {
        sequenceId: String(index),
        promptTokenIds: question.prompt,
        generatedTokenIds: question.generated ?? [],
        sampling: { temperature: question.temperature ?? 0, topP: 0.95, topK: 50, seed: 1000 + index },
        maxTokens: question.maxTokens,
        stopTokenIds: [],
        tenant: 'test',
        program: '',
        serviceTier: 'default',
        objectives: { ttftMs: 0, itlMs: 0 },
        ageLimits: null,
        cacheSalt: '',
      },
      now,
    );
    if (refused !== null) throw new Error(`sequence ${index} was refused: ${JSON.stringify(refused)}`);
  };
  if (conditions.isOneByOne) submit(0);
  else for (const index of asked.keys()) submit(index);
  for (let step = 1; ; step += 1) {
    const batch = scheduler.schedule(now);
    if (!batch) return { outputs, ...seen };
    seen.largestBatch = Math.max(seen.largestBatch, batch.entries.length);
    const result = await device.run(path, batch.entries, 'scheduled');
    now += result.deviceMs;
    const settled = scheduler.settle({ stepId: batch.stepId, ...result }, now);
    for (const { sequenceId, tokenId } of settled.events) outputs[Number(sequenceId)]?.push(tokenId);
    for (const { sequenceId, reason } of settled.ended) {
      if (reason !== 'length') throw new Error(`sequence ${sequenceId} ended by ${reason}`);
      if (conditions.isOneByOne) submit(Number(sequenceId) + 1);
    }
    seen.preemptionCount += settled.preemptionCount;
    seen.cachedTokenCount += settled.cachedTokenCount;
    seen.acceptedDraftCount += settled.acceptedDraftCount;
    seen.stepCount += 1;
    if (other === first || step % (conditions.switchSteps ?? 3) !== 0) continue;
    path = path === first ? other : first;
    scheduler.setLimits(path);
    seen.switchCount += 1;
  }
}
