/**
 * A worker process that answers at once, for the gateway's bench: `LINK_SOCKET MODEL_DIR`. It speaks the link's frames and
 * computes nothing. A sequence gets all its tokens at once; those of the program `stepwise` get one in each turn of the event
 * loop, as steps would give them. Tests only.
 */
import { randomUUID } from 'node:crypto';
import { connect } from 'node:net';
import { type Envelope, parsePath, pathId } from '@variator/kernels/execution-path';
import { KV_BLOCK_SIZE } from '@variator/kernels/kv-plan';
import { loadModel } from '@variator/kernels/model';
import { noGuesses } from '@variator/scheduler/guess-watch';
import type { Account, SequenceSpec, TokenEvent } from '@variator/scheduler/sequence';
import { frameSocket } from '../../../apps/engine/fleet/frame-socket.ts';
import { type GatewayFrame, LINK_VERSION, type WorkerFrame } from '../../../apps/engine/fleet/link-frames.ts';

const [linkPath = '', modelDir = ''] = process.argv.slice(2);
const model = await loadModel(modelDir);
const envelope: Envelope = {
  deviceKind: 'instant',
  deviceName: 'answers at once',
  modelId: model.modelId,
  modelHash: model.modelHash,
  linearVariants: ['linear.reference'],
  attentionVariants: ['attention.reference'],
  threadCount: 1,
  kvBlockCount: 100_000,
  kvBlockCounts: {},
  kvBlockSize: KV_BLOCK_SIZE,
  maxModelLenTokens: 2048,
  maxTokenBudget: 2048,
  maxRunningCount: 1024,
  maxDraftTokenCount: 0,
  vocabularySize: model.shape.vocabularySize,
  layerCount: model.shape.layerCount,
  headCount: model.shape.headCount,
  headSize: model.shape.headSize,
  activeParameterCount: 1,
  weightBytes: { 'linear.reference': 1 },
  kvBytesPerToken: 1,
  probe: {
    cpuModel: 'none',
    features: [],
    coreCount: 1,
    readBytesPerSecond: 1,
    float32FlopsPerSecond: 1,
    int8OpsPerSecond: 1,
  },
};
const account: Account = {
  prefillDeviceMs: 0,
  decodeDeviceMs: 0,
  speculationWasteDeviceMs: 0,
  recomputeDeviceMs: 0,
  fitId: '',
  fitCount: 0,
};

interface Open {
  readonly spec: SequenceSpec;
  count: number;
}
const open = new Map<string, Open>();
let stepId = 0;
let isTurning = false;
let path = parsePath('reference', envelope);

const socket = connect(linkPath);
const link = frameSocket<GatewayFrame, WorkerFrame>(
  socket,
  (frame) => {
    if (frame.type === 'submit') {
      open.set(frame.spec.sequenceId, { spec: frame.spec, count: 0 });
      turn();
    } else if (frame.type === 'cancel') {
      const cancelled = open.get(frame.sequenceId);
      if (cancelled) end(cancelled, frame.reason);
    } else if (frame.type === 'switchTo') {
      path = frame.path;
      link.send({ type: 'pathChanged', path, stepId, rolloutId: frame.rolloutId });
    } else if (frame.type === 'drain') process.exit(0);
  },
  () => process.exit(0),
);
socket.once('connect', () => {
  const { pid } = process;
  link.send({
    type: 'hello',
    version: LINK_VERSION,
    workerId: 'worker-0',
    bootId: randomUUID(),
    pid,
    envelope,
    path,
  });
});
setInterval(() => {
  link.send({
    type: 'heartbeat',
    runningCount: open.size,
    waitingCount: 0,
    kvUsedBlockCount: 0,
    pathId: pathId(path),
    deviceTelemetry: null,
  });
}, 500);

function turn(): void {
  if (isTurning) return;
  isTurning = true;
  setImmediate(() => {
    isTurning = false;
    step();
    if (open.size > 0) turn();
  });
}

function step(): void {
  stepId += 1;
  const events: TokenEvent[] = [];
  const starts = [];
  const done: Open[] = [];
  for (const [sequenceId, sequence] of open) {
    const { count } = sequence;
    if (count === 0) starts.push({ sequenceId, cachedTokenCount: 0, queueMs: 0 });
    // Words of one and two letters, never a special token.
    const { maxTokens, program } = sequence.spec;
    const until = program === 'stepwise' ? count + 1 : maxTokens;
    for (let index = count; index < until; index += 1) {
      events.push({ sequenceId, tokenId: 300 + ((stepId + index) % 400), index });
    }
    sequence.count = until;
    if (until === maxTokens) done.push(sequence);
  }
  link.send({ type: 'tokens', stepId, events, accounts: events.map(() => account), starts });
  for (const sequence of done) end(sequence, 'length');
}

function end({ spec, count }: Open, reason: 'length' | 'stop' | 'cancelled'): void {
  open.delete(spec.sequenceId);
  link.send({
    type: 'ended',
    pathId: pathId(path),
    ended: {
      sequenceId: spec.sequenceId,
      reason,
      message: '',
      account,
      promptTokenCount: spec.promptTokenIds.length,
      cachedTokenCount: 0,
      completionTokenCount: count,
      preemptionCount: 0,
      speculatedTokenCount: 0,
      acceptedTokenCount: 0,
      guesses: noGuesses,
      queueMs: 0,
      isMixedNumerics: false,
    },
  });
}
