import { once } from 'node:events';
import { connect } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { afterEach, expect, test } from 'vitest';
import { MODEL, type Served, serve } from './served.fixture.ts';

const keys = [
  { name: 'ada', key: 'key-of-ada' },
  { name: 'bob', key: 'key-of-bob' },
];
const as = (name: string): Record<string, string> => ({ authorization: `Bearer key-of-${name}` });
/** In every prompt below; no row may hold it. */
const SECRET = 'Rosebud';
const prompt = { model: MODEL, prompt: `${SECRET} went home.`, max_tokens: 4 };

let served: Served;
afterEach(() => served.close());

const counted = async (name: string): Promise<number> => {
  const text = await (await fetch(`${served.url}/metrics`)).text();
  const values = text.split('\n').filter((line) => line.startsWith(name));
  return values.reduce((sum, line) => sum + Number(line.slice(line.lastIndexOf(' ') + 1)), 0);
};

test('each refusal of a known caller has a row that says whose, when and why, and nothing of what was asked', async () => {
  served = await serve(() => ({ tokenIds: [437] }), { apiKeys: keys });
  const chat = { model: MODEL, messages: [{ role: 'user', content: SECRET }] };
  const refusals: readonly (readonly [string, unknown, number, string])[] = [
    ['/v1/completions', { ...prompt, temperature: 9 }, 400, 'invalid_value'],
    ['/v1/completions', `{"prompt": "${SECRET}`, 400, 'invalid_json'],
    ['/v1/completions', { ...prompt, prompt: `${SECRET} `.repeat(3000) }, 400, 'context_length_exceeded'],
    ['/v1/chat/completions', { ...chat, model: SECRET }, 404, 'model_not_found'],
    ['/v1/chat/completions', { ...chat, tools: [{ type: 'function' }] }, 400, 'unsupported_parameter'],
    ['/v1/chat/completions', ' '.repeat(3_000_000), 413, 'request_too_large'],
  ];
  for (const [index, [path, body, status, code]] of refusals.entries()) {
    const headers = { ...as(index % 2 === 0 ? 'ada' : 'bob'), 'x-request-id': `mine-${index}` };
    const answer = await served.post(path, body, headers);
    expect([answer.status, ((await answer.json()) as { error: { code: string } }).error.code]).toEqual([
      status,
      code,
    ]);
  }
  expect(served.refusals).toMatchObject(
    refusals.map(([endpoint, , status, errorCode], index) => ({
      requestId: `mine-${index}`,
      endpoint,
      tenant: index % 2 === 0 ? 'ada' : 'bob',
      keyId: index % 2 === 0 ? 'ada' : 'bob',
      modelId: MODEL,
      status,
      errorCode,
      outcome: 'refused',
      finishReason: '',
      promptTokenCount: 0,
      completionTokenCount: 0,
      decodeDeviceMs: 0,
      isWithinObjectives: false,
    })),
  );
  expect(JSON.stringify(served.refusals)).not.toContain(SECRET);
  expect(served.rows).toEqual([]);
});

test('a full queue and a server without workers are told with session and tier, since these were known', async () => {
  served = await serve(() => ({ tokenIds: [437, 464], gapMs: 400 }), {
    limits: { maxQueuedRequestCount: 1 },
  });
  const terms = { 'x-session-id': 'session-1' };
  const first = served.post('/v1/completions', { ...prompt, stream: true }, terms);
  await sleep(100);
  const second = await served.post(
    '/v1/completions',
    { ...prompt, stream: true, service_tier: 'priority' },
    terms,
  );
  expect(second.status).toBe(429);
  await (await first).text();
  await served.rowsReach(1);
  await served.server.drain(100);
  expect((await served.post('/v1/completions', prompt)).status).toBe(503);
  expect(served.refusals).toMatchObject([
    {
      status: 429,
      errorCode: 'rate_limit_exceeded',
      session: 'session-1',
      serviceTierAsked: 'priority',
      serviceTier: 'priority',
      isStreamed: true,
    },
    { status: 503, outcome: 'refused', session: '' },
  ]);
  expect(served.rows).toMatchObject([{ outcome: 'ok' }]);
});

test('no row of a refusal: without a known key, for what generates nothing, after a sequence, or when the client cut itself off', async () => {
  served = await serve(
    (spec) => ({ tokenIds: [437], ...(spec.promptTokenIds.length === 3 ? { failAt: 0 } : {}) }),
    {
      apiKeys: keys,
    },
  );
  expect((await served.post('/v1/completions', prompt)).status).toBe(401);
  expect((await served.post('/v1/completions', prompt, { authorization: 'Bearer guess' })).status).toBe(401);
  expect((await served.post('/tokenize', { prompt: 7 }, as('ada'))).status).toBe(400);
  expect((await served.post('/v1/nothing', prompt, as('ada'))).status).toBe(404);
  expect((await served.post('/v1/completions', prompt, as('ada'))).status).toBe(200);
  const failing = { ...prompt, prompt: [5, 6, 7] };
  expect((await served.post('/v1/completions', failing, as('ada'))).status).toBeGreaterThanOrEqual(500);
  const socket = connect(served.port, '127.0.0.1');
  await once(socket, 'connect');
  socket.write(
    'POST /v1/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer key-of-ada\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{"pro',
  );
  await sleep(50);
  socket.destroy();
  await sleep(50);
  await served.rowsReach(2);
  expect(served.rows.map(({ outcome }) => outcome)).toEqual(['ok', 'failed']);
  expect(served.refusals).toEqual([]);
});

test('of a storm ten rows a second and tenant are written, the rest is counted; others keep theirs', async () => {
  let now = 1_800_000_000_000;
  served = await serve(() => ({ tokenIds: [437] }), { apiKeys: keys, now: () => now });
  const storm = (name: string, count: number) =>
    Promise.all(
      Array.from({ length: count }, async () => {
        const answer = await served.post('/v1/completions', { ...prompt, n: -1 }, as(name));
        expect(answer.status).toBe(400);
      }),
    );
  await storm('ada', 40);
  await storm('bob', 3);
  const rowsOf = (name: string): number => served.refusals.filter(({ tenant }) => tenant === name).length;
  expect([rowsOf('ada'), rowsOf('bob')]).toEqual([10, 3]);
  expect(await counted('variator:refusal_rows_skipped_total')).toBe(30);
  expect(await counted('variator:requests_refused_total')).toBe(43);
  now += 1000;
  await storm('ada', 1);
  expect(rowsOf('ada')).toBe(11);
});

test('many tenants together write a hundred rows a second', async () => {
  served = await serve(() => ({ tokenIds: [437] }), {
    isTenantHeaderTrusted: true,
    now: () => 1_800_000_000_000,
  });
  for (let tenant = 0; tenant < 15; tenant += 1) {
    const headers = { 'x-tenant-id': `tenant-${tenant}` };
    await Promise.all(
      Array.from({ length: 10 }, () => served.post('/v1/completions', { ...prompt, n: -1 }, headers)),
    );
  }
  expect(served.refusals).toHaveLength(100);
  expect(await counted('variator:refusal_rows_skipped_total')).toBe(50);
});
