/**
 * Token streams as agents and writers make them, and the real scheduler over them on a virtual clock: a device that knows how
 * each sequence goes on and takes what a step-time model says. For tests and benches of speculation; never imported by the product.
 */
import type { BatchEntry } from './batch.ts';
import { seededRandom } from './paper-device.ts';
import { Scheduler, type SchedulerOptions } from './scheduler.ts';
import type { EndedSequence, SequenceSpec } from './sequence.ts';
import { predictMs, type StepTimeFit } from './step-time.ts';

export interface RecordedStream {
  readonly at: number;
  readonly promptTokenIds: readonly number[];
  readonly answerTokenIds: readonly number[];
}

export interface StreamShape {
  readonly count: number;
  readonly gapMs: number;
  readonly promptTokens: number;
  readonly answerTokens: number;
  /** Of an answer's tokens, how many are copied from what stands before, on average. */
  readonly copiedShare: number;
  /** Tokens of a stretch that is copied, on average. */
  readonly copiedTokens: number;
}

const VOCABULARY = 8000;

/** Answers that now and then quote a stretch of what stood before, with words of their own between. */
export function recordedStreams(shape: StreamShape, seed: number): RecordedStream[] {
  const random = seededRandom(seed);
  const about = (mean: number): number => Math.max(1, Math.round(mean * (0.6 + 0.8 * random())));
  const word = (): number => Math.floor(VOCABULARY * random() ** 2);
  const ownTokens = (shape.copiedTokens * (1 - shape.copiedShare)) / Math.max(0.001, shape.copiedShare);
  return Array.from({ length: shape.count }, (_, index) => {
    const promptTokenIds = Array.from({ length: about(shape.promptTokens) }, word);
    const all = [...promptTokenIds];
    const wanted = all.length + about(shape.answerTokens);
    while (all.length < wanted) {
      for (let left = about(ownTokens); left > 0; left -= 1) all.push(word());
      if (shape.copiedShare === 0) continue;
      const start = Math.floor(random() * (all.length - 1));
      const end = start + about(shape.copiedTokens);
      for (let place = start; place < end; place += 1) all.push(all[place] ?? 0);
    }
    return {
      at: Math.round(shape.gapMs * (index + random())),
      promptTokenIds,
      answerTokenIds: all.slice(promptTokenIds.length, wanted),
    };
  });
}

export interface StreamRun {
  readonly ended: readonly EndedSequence[];
  readonly deviceMs: number;
  readonly stepCount: number;
  readonly draftedTokenCount: number;
  readonly acceptedDraftCount: number;
  /** Of each verified draft: its place among its answer's tokens, and whether it was right. */
  readonly verified: readonly {
    readonly stream: number;
    readonly place: number;
    readonly isRight: boolean;
  }[];
  readonly endedAt: number;
}

/** Runs all to their ends. @param device what steps take; 1 ms each where it is null, and nothing is predicted */
export function runStreams(
  streams: readonly RecordedStream[],
  options: SchedulerOptions,
  device: StepTimeFit | null,
  change: Partial<SequenceSpec> = {},
): StreamRun {
  const scheduler = new Scheduler(options);
  scheduler.setFit(device);
  const waiting = streams
    .map((stream, index) => ({ stream, index }))
    .sort((a, b) => a.stream.at - b.stream.at);
  const ended: EndedSequence[] = [];
  const verified: { stream: number; place: number; isRight: boolean }[] = [];
  let now = 0;
  const counted = { deviceMs: 0, stepCount: 0, draftedTokenCount: 0, acceptedDraftCount: 0 };
  const tokenAt = (index: number, position: number): number => {
    const { promptTokenIds, answerTokenIds } = streams[index] as RecordedStream;
    return answerTokenIds[position - promptTokenIds.length] ?? 0;
  };
  /** What follows the entry's last known token, and each of its drafts. */
  const drawn = (entry: BatchEntry): number[] => {
    const { draftCount = 0, contextLength, tokenIds } = entry;
    const first = contextLength + tokenIds.length - draftCount;
    return Array.from({ length: draftCount + 1 }, (_, k) => tokenAt(Number(entry.sequenceId), first + k));
  };
  for (;;) {
    for (let due = waiting[0]; due !== undefined && due.stream.at <= now; due = waiting[0]) {
      waiting.shift();
      scheduler.submit(specOf(due.stream, due.index, change), due.stream.at);
    }
    const batch = scheduler.schedule(now);
    if (batch === null) {
      const [next] = waiting;
      if (next === undefined) break;
      now = next.stream.at;
      continue;
    }
    const deviceMs = device === null ? 1 : predictMs(device, batch.features);
    now += deviceMs;
    for (const entry of batch.entries) {
      const { draftCount = 0 } = entry;
      const truth = drawn(entry);
      const index = Number(entry.sequenceId);
      const first = entry.contextLength + entry.tokenIds.length - draftCount;
      for (const [k, draft] of entry.tokenIds.slice(entry.tokenIds.length - draftCount).entries()) {
        const place = first + k - (streams[index]?.promptTokenIds.length ?? 0);
        verified.push({ stream: index, place, isRight: draft === truth[k] });
        if (draft !== truth[k]) break;
      }
    }
    const settled = scheduler.settle(
      {
        stepId: batch.stepId,
        sampledTokenIds: batch.entries.map((entry) => (entry.isSampled ? (drawn(entry)[0] ?? -1) : -1)),
        afterDraftTokenIds: batch.entries.map((entry) => drawn(entry).slice(1)),
        deviceMs,
      },
      now,
    );
    ended.push(...settled.ended);
    counted.deviceMs += deviceMs;
    counted.stepCount += 1;
    counted.draftedTokenCount += settled.draftedTokenCount;
    counted.acceptedDraftCount += settled.acceptedDraftCount;
    now += 0.3;
  }
  return { ...counted, ended, verified, endedAt: now };
}

function specOf(stream: RecordedStream, index: number, change: Partial<SequenceSpec>): SequenceSpec {
  return {
    sequenceId: String(index),
    promptTokenIds: stream.promptTokenIds,
    generatedTokenIds: [],
    sampling: { temperature: 0, topP: 1, topK: 0, seed: 1 },
    maxTokens: stream.answerTokenIds.length,
    stopTokenIds: [],
    tenant: 'one',
    program: '',
    serviceTier: 'default',
    objectives: { ttftMs: 0, itlMs: 0 },
    ageLimits: null,
    cacheSalt: '',
    ...change,
  };
}
