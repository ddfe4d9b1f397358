/** A fleet behind its door, met by raw sockets: strangers, workers of another build, broken ones. */
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { connect as connectTls } from 'node:tls';
import { stepRow } from '@variator/clickhouse/rows.fixture';
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import { afterEach, beforeEach, describe, expect, it } from 'vitest';
import { frameSocket } from './frame-socket.ts';
import { tlsOfWorker } from './join-tls.ts';
import type { Hello } from './joined-worker.ts';
import { type GatewayFrame, LINK_VERSION, type WorkerFrame } from './link-frames.ts';
import { specOf } from './real-workers.fixture.ts';
import { type WorkerFleet, workerFleet } from './worker-fleet.ts';

const token = 'a-token-of-at-least-thirty-two-characters';
const path: ExecutionPath = {
  linear: 'linear.reference',
  attention: 'attention.reference',
  threadCount: 1,
  tokenBudget: 32,
  maxRunningCount: 8,
  draftTokenCount: 0,
  tiles: 'measured',
  splitTokens: 512,
};
const envelope: Envelope = {
  deviceKind: 'cpu',
  deviceName: 'A CPU',
  modelId: 'a-model',
  modelHash: 'abc',
  linearVariants: ['linear.reference'],
  attentionVariants: ['attention.reference'],
  threadCount: 1,
  kvBlockCount: 64,
  kvBlockCounts: {},
  kvBlockSize: 16,
  maxModelLenTokens: 512,
  maxTokenBudget: 512,
  maxRunningCount: 32,
  maxDraftTokenCount: 0,
  vocabularySize: 1000,
  layerCount: 1,
  headCount: 1,
  headSize: 8,
  activeParameterCount: 1,
  weightBytes: {},
  kvBytesPerToken: 1,
  probe: {
    cpuModel: 'cpu',
    coreCount: 1,
    features: [],
    readBytesPerSecond: 1,
    float32FlopsPerSecond: 1,
    int8OpsPerSecond: 1,
  },
};
const hello = (more: Partial<Hello> = {}): Hello => ({
  type: 'hello',
  version: LINK_VERSION,
  workerId: 'w',
  bootId: randomUUID(),
  pid: 1,
  envelope,
  path,
  ...more,
});

let folder: string;
let fleet: WorkerFleet;
let rows: number;
const logged: string[] = [];
const ends: (() => void)[] = [];

beforeEach(async () => {
  folder = mkdtempSync(join(tmpdir(), 'variator-door-'));
  rows = 0;
  fleet = workerFleet({
    linkPath: join(folder, 'link.sock'),
    joining: { host: '127.0.0.1', port: 0, token },
    model: { modelHash: 'abc', maxModelLenTokens: 512 },
    now: () => performance.now(),
    log: (line) => logged.push(line),
    onRows: (more) => {
      rows += more.length;
    },
    pathFor: () => null,
  });
  await fleet.listen();
});
afterEach(async () => {
  for (const end of ends.splice(0)) end();
  await fleet.close();
  rmSync(folder, { recursive: true, force: true });
  logged.length = 0;
});

const until = async (isTrue: () => boolean) => {
  for (let waited = 0; !isTrue() && waited < 15_000; waited += 5)
    await new Promise((resolve) => setTimeout(resolve, 5));
  expect(isTrue()).toBe(true);
};

/** A hand-made worker: what it hears, and whether its link still stands. */
async function dial(way: 'local' | 'remote' | { token: string } = 'local') {
  const socket: Socket =
    way === 'local'
      ? connect(join(folder, 'link.sock'))
      : connectTls({
          host: '127.0.0.1',
          port: fleet.joinPort() ?? 0,
          ...tlsOfWorker(way === 'remote' ? token : way.token),
        });
  const heard: GatewayFrame[] = [];
  const state = { closed: false, fault: '' };
  const link = frameSocket<GatewayFrame, WorkerFrame>(
    socket,
    (frame) => heard.push(frame),
    (error) => {
      state.closed = true;
      state.fault = error?.message ?? '';
    },
  );
  ends.push(() => socket.destroy());
  await Promise.race([
    new Promise((resolve) => socket.once(way === 'local' ? 'connect' : 'secureConnect', resolve)),
    new Promise((resolve) => socket.once('close', resolve)),
  ]);
  const refusal = () => heard.find((frame) => frame.type === 'refused');
  return { socket, link, heard, state, refusal };
}
const joined = async (way: 'local' | 'remote', more: Partial<Hello> = {}) => {
  const worker = await dial(way);
  worker.link.send(hello(more));
  await until(() => worker.heard.some(({ type }) => type === 'alive'));
  return worker;
};

it('over TLS with the token a worker joins; with another, or none, nothing of it is read', async () => {
  await joined('remote');
  expect(fleet.workers().map(({ workerId }) => workerId)).toEqual(['w']);
  const wrong = await dial({ token: 'another-token-of-at-least-thirty-two-chars' });
  await until(() => wrong.state.closed);
  expect(wrong.state.fault).toMatch(/bad record mac|decryption failed/);
  expect(wrong.heard).toEqual([]);
  expect(logged.join('\n')).toContain('was refused: its join token is not this one');
  const plain = connect(fleet.joinPort() ?? 0, '127.0.0.1');
  ends.push(() => plain.destroy());
  plain.on('error', () => {});
  plain.write('GET / HTTP/1.1\r\n\r\n');
  await new Promise((resolve) => plain.once('close', resolve));
  expect(fleet.workers()).toHaveLength(1);
});

it.each<[string, unknown, RegExp]>([
  ['null', null, /sent something else than hello/],
  ['a number', 7, /sent something else than hello/],
  ['another frame', { type: 'heartbeat' }, /sent something else than hello/],
  [
    'another version',
    { ...hello(), version: LINK_VERSION - 1 },
    /speaks version \d+ of the link.*same release/,
  ],
  ['no version', { type: 'hello' }, /speaks version undefined/],
  ['no envelope', { ...hello(), envelope: undefined }, /hello with a wrong envelope/],
  ['a name for a shell', { ...hello(), workerId: 'w; rm' }, /hello with a wrong workerId/],
  ['a path of no threads', { ...hello(), path: { ...path, threadCount: 0 } }, /wrong path.threadCount/],
  ['a cache without end', { ...hello(), envelope: { ...envelope, kvBlockCount: 1e300 } }, /kvBlockCount/],
  ['another model', hello({ envelope: { ...envelope, modelHash: 'def' } }), /another model.*same files/],
  ['too little room', hello({ envelope: { ...envelope, maxModelLenTokens: 511 } }), /room for 511 tokens/],
])('who says hello with %s is told what is wrong', async (_what, frame, sentence) => {
  const worker = await dial();
  worker.link.send(frame as WorkerFrame);
  await until(() => worker.state.closed);
  expect(worker.refusal()).toMatchObject({ isFinal: true, reason: expect.stringMatching(sentence) });
  expect(logged.join('\n')).toMatch(sentence);
  expect(fleet.workers()).toEqual([]);
});

it('a stranger cannot fill the memory: its frames are small, and it says hello soon or leaves', async () => {
  const large = await dial();
  const head = Buffer.alloc(4);
  head.writeUInt32BE(65_537);
  large.socket.write(head);
  await until(() => large.state.closed);
  const silent = await Promise.all(Array.from({ length: 64 }, () => dial()));
  const next = await dial();
  await until(() => next.state.closed);
  expect(silent.some(({ state }) => state.closed)).toBe(false);
  await until(() => silent.every(({ state }) => state.closed));
  await joined('local');
}, 20_000);

it('a name that is taken is not taken over, except by the same process or the supervisor’s next one', async () => {
  const bootId = randomUUID();
  const first = await joined('remote', { bootId });
  const thief = await dial('remote');
  thief.link.send(hello());
  await until(() => thief.state.closed);
  expect(thief.refusal()).toMatchObject({
    isFinal: false,
    reason: expect.stringMatching(/worker w already/),
  });
  expect(first.state.closed).toBe(false);
  // Its link broke and the gateway does not know it yet.
  const again = await joined('remote', { bootId });
  await until(() => first.state.closed);
  again.socket.destroy();
  await until(() => fleet.workers().length === 0);
  const local = await joined('local');
  const remote = await dial('remote');
  remote.link.send(hello());
  await until(() => remote.state.closed);
  expect(local.state.closed).toBe(false);
  await joined('local');
  await until(() => local.state.closed);
  expect(fleet.workers()).toHaveLength(1);
});

describe('a worker that has joined and sends', () => {
  const account = {
    prefillDeviceMs: 1,
    decodeDeviceMs: 1,
    speculationWasteDeviceMs: 0,
    recomputeDeviceMs: 0,
    fitId: '',
    fitCount: 0,
  };
  const tokens = (event: object, more: object = {}) => ({
    type: 'tokens',
    stepId: 1,
    events: [event],
    accounts: [account],
    starts: [],
    ...more,
  });
  const token0 = { sequenceId: 's', tokenId: 5, index: 0 };
  it.each<[string, unknown]>([
    ['null', null],
    ['a list', []],
    ['an unknown type', { type: 'shutdown' }],
    ['hello again', hello()],
    ['tokens that are no list', { type: 'tokens', stepId: 1, events: 'x', accounts: [], starts: [] }],
    ['null for a token', tokens(null as unknown as object)],
    ['a token beyond the vocabulary', tokens({ ...token0, tokenId: 1000 })],
    ['a token that is no number', tokens({ ...token0, tokenId: '5' })],
    ['a token twice', tokens(token0, { events: [token0, token0], accounts: [account, account] })],
    ['a token too early', tokens({ ...token0, index: 1 })],
    ['a token without its account', tokens(token0, { accounts: [] })],
    ['an account of null', tokens(token0, { accounts: [null] })],
    ['an account that is no number', tokens(token0, { accounts: [{ ...account, decodeDeviceMs: null }] })],
    ['log-probabilities of another shape', tokens({ ...token0, logprobs: [1] })],
    ['an end without a reason', { type: 'ended', ended: { sequenceId: 's' }, pathId: 'p' }],
    ['rows of another worker', { type: 'stepRows', rows: [stepRow({ workerId: 'other' })] }],
    [
      'a row with a column too many',
      { type: 'stepRows', rows: [{ ...stepRow({ workerId: 'w' }), extra: 1 }] },
    ],
    ['a row with a text for a number', { type: 'stepRows', rows: [{ ...stepRow({}), deviceMs: 'long' }] }],
    ['blocks of numbers', { type: 'blocks', entered: [1], left: [] }],
    [
      'a heartbeat that counts half',
      {
        type: 'heartbeat',
        runningCount: 0.5,
        waitingCount: 0,
        kvUsedBlockCount: 0,
        pathId: 'p',
        deviceTelemetry: null,
      },
    ],
    ['a path of nothing', { type: 'pathChanged', path: {}, stepId: 1, rolloutId: '' }],
  ])('%s is lost alone', async (_what, frame) => {
    const worker = await joined('remote');
    const stream = fleet.submit(specOf('s', [1, 2, 3], 4), 0);
    const bystander = await joined('local', { workerId: 'bystander' });
    worker.link.send(frame as WorkerFrame);
    await until(() => worker.state.closed);
    expect(logged.join('\n')).toMatch(/w was lost: it sent/);
    expect(fleet.workers().map(({ workerId }) => workerId)).toEqual(['bystander']);
    expect(bystander.state.closed).toBe(false);
    expect(rows).toBe(0);
    stream.cancel();
  });

  it('what it should is heard', async () => {
    const bootId = randomUUID();
    const worker = await joined('remote', { bootId });
    worker.link.send({ type: 'stepRows', rows: [stepRow({ workerId: 'w', bootId })] });
    worker.link.send({
      type: 'heartbeat',
      runningCount: 3,
      waitingCount: 2,
      kvUsedBlockCount: 9,
      pathId: 'p',
      deviceTelemetry: null,
    });
    await until(() => fleet.workers()[0]?.kvUsedBlockCount === 9);
    expect(rows).toBe(1);
    expect(worker.state.closed).toBe(false);
  });
});
