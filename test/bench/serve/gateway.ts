/**
 * What the gateway adds: its real process, with a worker process that answers at once, against a bare HTTP server that
 * sends the same bytes. 200 requests a second in an open loop, the load beside both on the same cores, in turn (A B C A B C):
 * all tokens of an answer in one frame, the bare server, and a frame for each token, whose time is the worker's too. Then how
 * many tokens a second it streams.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { embeddedClickHouse } from '../../../apps/engine/cli/embedded-clickhouse.ts';
import { environmentForParts } from '../../../apps/engine/config.ts';
import { root } from '../../running-product.ts';
import { type Figure, figure, spread } from '../figure.ts';

const MODEL = 'models/stories-5m';
const PER_SECOND = 200;
const ROUND_MS = 5000;
const ROUNDS = 6;
const TOKENS = 8;
const STREAMS = 100;
const STREAM_TOKENS = 1000;
const STREAM_ROUNDS = 5;

const chat = (maxTokens: number): string =>
  JSON.stringify({
    model: 'stories-5m',
    messages: [{ role: 'user', content: 'Tell me a story of a dog and a boat.' }],
    max_tokens: maxTokens,
    temperature: 0,
    ignore_eos: true,
    stream: true,
  });

export async function benchGateway(): Promise<readonly Figure[]> {
  const folder = mkdtempSync(join(tmpdir(), 'variator-gateway-'));
  const clickhouse = await embeddedClickHouse(join(folder, 'clickhouse'), () => {});
  const children: ChildProcess[] = [];
  const start = (script: string, args: readonly string[], env: Record<string, string> = {}): ChildProcess => {
    const child = spawn(process.execPath, ['--import', 'tsx', script, ...args], {
      cwd: root,
      env: { ...environmentForParts(), ...env },
      stdio: ['pipe', 'ignore', 'inherit'],
    });
    children.push(child);
    return child;
  };
  try {
    const [port, adminPort, barePort] = [await freePort(), await freePort(), await freePort()];
    const link = join(folder, 'link.sock');
    start(
      'apps/engine/main.ts',
      [
        '--model',
        MODEL,
        '--link',
        link,
        '--data',
        folder,
        '--port',
        `${port}`,
        '--admin-port',
        `${adminPort}`,
      ],
      { VARIATOR_CLICKHOUSE_URL: clickhouse.url },
    );
    await untilListening(adminPort);
    start('test/bench/serve/instant-worker.ts', [link, MODEL]);
    await untilReady(port);
    const sample = await send(port, chat(TOKENS));
    start('test/bench/serve/bare-server.ts', [String(barePort), Buffer.from(sample.body).toString('base64')]);
    await untilListening(barePort);
    for (const warm of [port, barePort]) await openLoop(warm, 2000);

    const added = { p50: [] as number[], p99: [] as number[] };
    const stepwise = { p50: [] as number[], p99: [] as number[] };
    const own = { p50: [] as number[], p99: [] as number[] };
    for (let round = 0; round < ROUNDS; round += 1) {
      const through = await openLoop(port, ROUND_MS);
      const bare = await openLoop(barePort, ROUND_MS);
      const inSteps = await openLoop(port, ROUND_MS, 'stepwise');
      for (const [key, share] of [
        ['p50', 0.5],
        ['p99', 0.99],
      ] as const) {
        const at = (values: readonly number[]): number =>
          values[Math.floor(share * (values.length - 1))] ?? Number.NaN;
        added[key].push(at(through) - at(bare));
        stepwise[key].push(at(inSteps) - at(bare));
        own[key].push(at(through));
      }
    }
    const rates: number[] = [];
    for (let round = 0; round < STREAM_ROUNDS; round += 1) {
      const startedAt = performance.now();
      const answers = await Promise.all(
        Array.from({ length: STREAMS }, () => send(port, chat(STREAM_TOKENS), 'stepwise')),
      );
      const tokens = answers.reduce((sum, { body }) => sum + body.split('"content":').length - 2, 0);
      rates.push(tokens / ((performance.now() - startedAt) / 1000));
    }
    return [
      figure(
        `added latency p50 at ${PER_SECOND} requests/s`,
        spread(added.p50),
        'ms',
        '<= 1 ms',
        (ms) => ms <= 1,
      ),
      figure(
        `added latency p99 at ${PER_SECOND} requests/s`,
        spread(added.p99),
        'ms',
        '<= 10 ms',
        (ms) => ms <= 10,
      ),
      figure('the same with a frame for each of 8 tokens, p50', spread(stepwise.p50), 'ms', '', null),
      figure('the same with a frame for each of 8 tokens, p99', spread(stepwise.p99), 'ms', '', null),
      figure('whole latency p50 through the gateway', spread(own.p50), 'ms', '', null),
      figure('whole latency p99 through the gateway', spread(own.p99), 'ms', '', null),
      figure(
        `streamed tokens/s, ${STREAMS} streams of ${STREAM_TOKENS}`,
        spread(rates),
        'tok/s',
        '>= 20,000',
        (rate) => rate >= 20_000,
        0,
      ),
    ];
  } finally {
    for (const child of [...children].reverse()) {
      const gone = new Promise((resolve) => child.once('exit', resolve));
      child.kill('SIGKILL');
      await gone;
    }
    await clickhouse.stop();
    rmSync(folder, { recursive: true, force: true });
  }
}

const agent = new Agent({ keepAlive: true, maxSockets: 512 });

function send(port: number, body: string, program = ''): Promise<{ status: number; body: string }> {
  return new Promise((resolve, reject) => {
    const headers = {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(body),
      'x-program-id': program,
    };
    const sent = request(
      { host: '127.0.0.1', port, path: '/v1/chat/completions', method: 'POST', headers, agent },
      (response) => {
        const pieces: Buffer[] = [];
        response.on('data', (piece: Buffer) => pieces.push(piece));
        response.on('end', () =>
          resolve({ status: response.statusCode ?? 0, body: Buffer.concat(pieces).toString() }),
        );
        response.on('error', reject);
      },
    );
    sent.on('error', reject);
    sent.end(body);
  });
}

/** Latencies from sending each request to its last byte, ascending. */
async function openLoop(port: number, forMs: number, program = ''): Promise<number[]> {
  const latencies: number[] = [];
  const body = chat(TOKENS);
  const underWay: Promise<void>[] = [];
  const startedAt = performance.now();
  for (let index = 0; (index * 1000) / PER_SECOND < forMs; index += 1) {
    const intendedAt = startedAt + (index * 1000) / PER_SECOND;
    const wait = intendedAt - performance.now();
    if (wait > 0) await pause(wait);
    // A timer's own lateness, or earliness, is the load's and not the server's.
    const sentAt = performance.now();
    underWay.push(
      send(port, body, program).then(({ status }) => {
        if (status !== 200) throw new Error(`answered ${status}`);
        latencies.push(performance.now() - sentAt);
      }),
    );
  }
  await Promise.all(underWay);
  return latencies.sort((a, b) => a - b);
}

async function untilListening(port: number): Promise<void> {
  await until(async () => {
    await fetch(`http://127.0.0.1:${port}/`, { method: 'HEAD' });
    return true;
  });
}

const untilReady = (port: number): Promise<void> =>
  until(async () => (await fetch(`http://127.0.0.1:${port}/ready`)).ok);

async function until(isSo: () => Promise<boolean>): Promise<void> {
  for (let attempt = 0; attempt < 600; attempt += 1) {
    if (await isSo().catch(() => false)) return;
    await pause(50);
  }
  throw new Error('the gateway did not come up in 30 s');
}

function freePort(): Promise<number> {
  return new Promise((resolve, reject) => {
    const probe = createServer();
    probe.once('error', reject);
    probe.listen(0, '127.0.0.1', () => {
      const address = probe.address();
      probe.close(() => resolve(typeof address === 'object' && address !== null ? address.port : 0));
    });
  });
}
