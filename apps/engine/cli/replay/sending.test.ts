import { createServer, type Server, type ServerResponse } from 'node:http';
import { setTimeout as pause } from 'node:timers/promises';
import { ValueSketch } from '@variator/optimizer/value-sketch';
import { afterEach, expect, it } from 'vitest';
import { driveSessions, type TurnRecord } from './drive-sessions.ts';
import { type PlannedSession, TraceFaults } from './planned-traffic.ts';
import { readReplayFlags } from './replay-flags.ts';
import { replayTrace } from './replay-trace.ts';

const servers: Server[] = [];
afterEach(async () => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    await new Promise((resolve) => server.close(resolve));
  }
});

type Behaviour = 'good' | '503' | 'cut' | 'slow' | 'garbage' | 'page' | 'error-event';

/** An endpoint that knows no token ids and no ignore_eos, and misbehaves by session. */
async function listen(behaviourOf: (session: string) => Behaviour, asked: string[] = []): Promise<string> {
  const chunk = (text: string) => `data: ${JSON.stringify({ choices: [{ delta: { content: text } }] })}\n\n`;
  const answer = async (behaviour: Behaviour, response: ServerResponse): Promise<void> => {
    if (behaviour === '503') {
      response.writeHead(503).end('{"error":{"message":"full"}}');
      return;
    }
    if (behaviour === 'page') {
      response.writeHead(200, { 'content-type': 'text/html' }).end('<html>');
      return;
    }
    response.writeHead(200, { 'content-type': 'text/event-stream' });
    response.write(chunk('one'));
    if (behaviour === 'cut') response.destroy();
    else if (behaviour === 'garbage') response.end('data: {"choices\n\n');
    else if (behaviour === 'error-event') response.end('data: {"error":{"message":"lost"}}\n\n');
    else if (behaviour !== 'slow') {
      await pause(5);
      const usage = { prompt_tokens: 8, completion_tokens: 2, prompt_tokens_details: { cached_tokens: 4 } };
      response.end(`${chunk('two')}data: ${JSON.stringify({ choices: [], usage })}\n\ndata: [DONE]\n\n`);
    }
  };
  const server = createServer((request, response) => {
    if (request.url === '/v1/models') {
      response.end('{"data":[{"id":"m"}]}');
      return;
    }
    let text = '';
    request.on('data', (data) => {
      text += data;
    });
    request.on('end', () => {
      if (request.url !== '/v1/chat/completions' || text.includes('ignore_eos')) {
        response.writeHead(400).end('{"error":{"message":"unknown parameter"}}');
        return;
      }
      asked.push(text);
      const session = request.headers['x-session-id'];
      void answer(typeof session === 'string' ? behaviourOf(session) : 'good', response);
    });
  });
  servers.push(server);
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const address = server.address();
  return `http://127.0.0.1:${typeof address === 'object' && address ? address.port : 0}`;
}

const session = (
  sessionId: string,
  startsAtMs: number,
  pausesMs: readonly number[] = [0],
): PlannedSession => ({
  sessionId,
  programId: '',
  serviceTier: '',
  startsAtMs,
  turns: pausesMs.map((pauseMs, index) => ({
    pauseMs,
    prompt: { kind: 'parts', parts: [{ key: `${sessionId}-${index}`, tokenCount: 8, answerOf: null }] },
    outputTokenCount: 2,
  })),
});

async function* each<T>(all: readonly T[]): AsyncGenerator<T> {
  yield* all;
}

const source = (sessions: readonly PlannedSession[]) => ({
  sessions: each(sessions),
  faults: new TraceFaults(),
  remarks: () => [],
  readShare: () => null,
});

const flagsFor = (url: string, ...more: string[]) =>
  readReplayFlags(['--agents', '--url', url, '--timeout', '0.5', ...more]);

it('tells every way in which a server misbehaves, and counts on', async () => {
  const kinds = ['good', '503', 'cut', 'slow', 'garbage', 'page', 'error-event'] as const;
  const url = await listen((name) => kinds.find((kind) => name.startsWith(kind)) ?? 'good');
  const sessions = kinds.flatMap((kind) => [session(`${kind}-1`, 0), session(`${kind}-2`, 1, [0, 0])]);
  const { report, abilities } = await replayTrace(
    source(sessions),
    flagsFor(url, '--e2e-ms', '400'),
    new AbortController().signal,
  );
  expect(abilities).toMatchObject({ api: 'chat', tokenIds: null, takesIgnoreEos: false, takesUsage: true });
  expect(report.all.faultCounts).toEqual({
    'http-503': 2,
    cut: 2,
    timeout: 2,
    'bad-event': 2,
    'not-a-stream': 2,
    'error-event': 2,
  });
  expect(report.all).toMatchObject({ requestCount: 15, okCount: 3, attainedCount: 3, cachedShare: 0.5 });
  // Six sessions of two turns lost their second with their first.
  expect(report.unsentTurnCount).toBe(6);
  expect(report.faultExamples['http-503']).toBe('full');
});

it('a turn is sent after the answer before it and its pause; requests alone do not wait for answers', async () => {
  const records: TurnRecord[] = [];
  const sentAt = new Map<string, number>();
  await driveSessions(each([session('long', 0, [0, 40, 40]), session('alone', 30)]), {
    ...{ speed: 2, fromMs: 0, durationMs: null, mostTurnCount: 100, maxInFlight: 10, hasLiveAnswers: false },
    signal: new AbortController().signal,
    async send({ sessionId }) {
      const at = performance.now();
      sentAt.set(sessionId, sentAt.get(sessionId) ?? at);
      await pause(60);
      return seen(at);
    },
    onTurn: (record) => records.push(record),
  });
  const long = records.filter(({ session: { sessionId } }) => sessionId === 'long');
  expect(long.map(({ turnIndex }) => turnIndex)).toEqual([0, 1, 2]);
  for (const [index, record] of long.slice(1).entries()) {
    // Pauses of 40 ms at twice the speed.
    expect(record.seen.sentAt).toBeGreaterThanOrEqual((long[index]?.seen.endedAt ?? 0) + 20);
  }
  expect(sentAt.get('alone')).toBeLessThan(long[0]?.seen.endedAt ?? 0);
});

it('what waits for a place is late by what it waited, and never more are under way than allowed', async () => {
  let underWay = 0;
  let most = 0;
  const lateMs: number[] = [];
  await driveSessions(each([0, 0, 0, 0].map((at, index) => session(`s${index}`, at))), {
    ...{ speed: 1, fromMs: 0, durationMs: null, mostTurnCount: 100, maxInFlight: 1, hasLiveAnswers: false },
    signal: new AbortController().signal,
    async send() {
      const at = performance.now();
      underWay += 1;
      most = Math.max(most, underWay);
      await pause(30);
      underWay -= 1;
      return seen(at);
    },
    onTurn: (record) => lateMs.push(record.seen.sentAt - record.intendedAt),
  });
  expect(most).toBe(1);
  expect(lateMs).toHaveLength(4);
  expect(lateMs[3]).toBeGreaterThanOrEqual(85);
});

it('stops in order: nothing more is sent, and what was cut off is neither answered nor failed', async () => {
  const url = await listen((name) => (name.startsWith('slow') ? 'slow' : 'good'));
  const stop = new AbortController();
  const sessions = [session('good', 0), session('slow', 0), session('later', 60_000)];
  const done = replayTrace(source(sessions), flagsFor(url, '--timeout', '30'), stop.signal, () =>
    setTimeout(() => stop.abort(), 300),
  );
  expect((await done).report.all).toMatchObject({ requestCount: 1, okCount: 1, faultCounts: {} });
});

it('with --live-answers later prompts hold what was answered', async () => {
  const asked: string[] = [];
  const url = await listen(() => 'good', asked);
  const [first, second] = session('s', 0, [0, 0]).turns;
  if (first === undefined || second === undefined) throw new Error('two turns');
  const answer = { key: 'answer', tokenCount: 2, answerOf: 0 };
  const prompt = { kind: 'parts' as const, parts: [answer] };
  const both = { ...session('s', 0), turns: [first, { ...second, prompt }] };
  await replayTrace(source([both]), flagsFor(url, '--live-answers'), new AbortController().signal);
  expect(asked.at(-1)).toContain('"content":"onetwo"');
});

it('quantiles of a sketch are within half a percent of those of the values', () => {
  const sketch = new ValueSketch();
  for (let value = 1; value <= 10_000; value += 1) sketch.add(value / 7);
  const found = sketch.quantiles();
  for (const [share, value] of [
    [0.5, found?.p50],
    [0.9, found?.p90],
    [0.99, found?.p99],
  ] as const) {
    expect(Math.abs((value ?? 0) / ((share * 10_000) / 7) - 1)).toBeLessThan(0.0051);
  }
  expect(found).toMatchObject({ count: 10_000, min: 1 / 7, max: 10_000 / 7 });
});

it('flags that cannot be meant are refused by name', () => {
  const cases: [string[], RegExp][] = [
    [[], /Say what to send/],
    [['trace', '--agents'], /one of them/],
    [['a', 'b'], /One trace at a time/],
    [['--agents', '--scale', '0'], /--scale must be a number above 0/],
    [['--agents', '--limit', '1.5'], /--limit must be a whole number/],
    [['--agents', '--tier', 'gold'], /--tier must be one of/],
    [['--agents', '--url', 'ftp://x'], /--url must start/],
    [['--agents', '--fast'], /--help lists/],
  ];
  for (const [argv, message] of cases) expect(() => readReplayFlags(argv)).toThrow(message);
});

const seen = (sentAt: number) => ({
  sentAt,
  firstTokenAt: null,
  endedAt: performance.now(),
  gapsMs: [],
  ...{ text: '', tokenIds: null, usage: null, fault: '', faultDetail: '' },
});
