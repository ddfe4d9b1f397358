import { connect } from 'node:net';
import OpenAI from 'openai';
import { afterEach, expect, test } from 'vitest';
import { MODEL, type Served, serve } from './served.fixture.ts';

const open: Served[] = [];
const opened = async (...parts: Parameters<typeof serve>): Promise<Served> => {
  const served = await serve(...parts);
  open.push(served);
  return served;
};
afterEach(async () => {
  for (const served of open.splice(0)) await served.close();
});

const chat = { model: MODEL, messages: [{ role: 'user' as const, content: 'Hi' }] };
const ids = [437, 464, 261];

test('a sequence that fails in the middle of a stream ends it with an error event and [DONE]', async () => {
  const served = await opened(() => ({ tokenIds: ids, failAt: 3 }));
  const response = await served.post('/v1/chat/completions', { ...chat, stream: true });
  const body = await response.text();
  expect(response.status).toBe(200);
  expect(body).toContain('data: {"error":{"message":"The server failed');
  expect(body.endsWith('data: [DONE]\n\n')).toBe(true);
  expect(body).not.toContain('/secret/path');
  const client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'any', maxRetries: 0 });
  const stream = await client.chat.completions.create({ ...chat, stream: true });
  const read = async (): Promise<void> => {
    for await (const _chunk of stream);
  };
  await expect(read()).rejects.toMatchObject({ code: 'server_error', type: 'server_error' });
  expect(served.rows.map((row) => [row.finishReason, row.status, row.errorCode])).toEqual([
    ['error', 200, 'server_error'],
    ['error', 200, 'server_error'],
  ]);
});

test('what fails before the first token has an honest status, streamed or not', async () => {
  const served = await opened(() => ({ tokenIds: ids, loseAt: 0 }));
  for (const stream of [true, false]) {
    const response = await served.post('/v1/chat/completions', { ...chat, stream });
    expect(response.status).toBe(503);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(await response.json()).toMatchObject({ error: { code: 'worker_lost', type: 'server_error' } });
  }
  expect(served.rows.map((row) => [row.status, row.isAccountFinal, row.errorCode])).toEqual([
    [503, false, 'worker_lost'],
    [503, false, 'worker_lost'],
  ]);
});

test('one failed prompt of several ends the others, and each has its row', async () => {
  const served = await opened((spec) => ({
    tokenIds: ids,
    gapMs: 2,
    ...(spec.sequenceId.endsWith('-1') ? { failAt: 2 } : {}),
  }));
  const response = await served.post('/v1/completions', {
    model: MODEL,
    prompt: ['a', 'b', 'c'],
    max_tokens: 1000,
  });
  expect(response.status).toBe(500);
  expect(await response.json()).toMatchObject({ error: { code: 'server_error' } });
  expect(served.rows.map((row) => row.finishReason).sort()).toEqual(['cancelled', 'cancelled', 'error']);
  expect(served.fleet.activeCount()).toBe(0);
});

test('without a worker: not ready, 503 with retry-after; health stays', async () => {
  const served = await opened(() => ({ tokenIds: ids }));
  expect((await fetch(`${served.url}/ready`)).status).toBe(200);
  served.fleet.unready('the worker is loading its model.');
  const ready = await fetch(`${served.url}/ready`);
  expect(ready.status).toBe(503);
  expect(await ready.json()).toEqual({ status: 'unready', reason: 'the worker is loading its model.' });
  const response = await served.post('/v1/chat/completions', chat);
  expect(response.status).toBe(503);
  expect(response.headers.get('retry-after')).toBe('1');
  expect(await response.json()).toMatchObject({ error: { type: 'server_error', code: 'server_error' } });
  expect((await fetch(`${served.url}/health`)).status).toBe(200);
  expect(served.rows).toEqual([]);
});

test('over the limit a request is refused at once with 429; the place is free when the stream has ended', async () => {
  const served = await opened(() => ({ tokenIds: ids, gapMs: 5 }), { limits: { maxSequenceCount: 2 } });
  const controller = new AbortController();
  const first = await fetch(`${served.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: MODEL, prompt: ['a', 'b'], max_tokens: 2000, stream: true }),
    signal: controller.signal,
  });
  const refused = await served.post('/v1/chat/completions', chat);
  expect(refused.status).toBe(429);
  expect(refused.headers.get('retry-after-ms')).toBe('1000');
  expect(await refused.json()).toMatchObject({
    error: { type: 'rate_limit_error', code: 'rate_limit_exceeded' },
  });
  controller.abort();
  await expect(first.text()).rejects.toThrow();
  await served.rowsReach(2);
  const admitted = await served.post('/v1/chat/completions', { ...chat, max_tokens: 1 });
  expect(admitted.status).toBe(200);
  await admitted.text();
});

test('prompt tokens that wait are bounded, a single request is not, and a first token makes room', async () => {
  const served = await opened(() => ({ tokenIds: ids, gapMs: 150 }), { limits: { maxQueuedTokenCount: 8 } });
  const body = { model: MODEL, prompt: Array.from({ length: 20 }, () => 5), max_tokens: 3, stream: true };
  const first = served.post('/v1/completions', body);
  while (served.fleet.activeCount() === 0) await new Promise((resolve) => setTimeout(resolve, 5));
  const refused = await served.post('/v1/completions', body);
  expect(refused.status).toBe(429);
  expect(Number(refused.headers.get('retry-after-ms'))).toBeGreaterThanOrEqual(100);
  const inside = await first;
  expect((await served.post('/v1/completions', { ...body, max_tokens: 1 })).status).toBe(200);
  await inside.text();
});

test('a key is asked for on /v1 alone, before the body is read', async () => {
  const served = await opened(() => ({ tokenIds: ids }), { apiKeys: [{ name: 'default', key: 'sesame' }] });
  for (const headers of [{}, { authorization: 'Bearer sesam' }, { authorization: 'Basic sesame' }]) {
    const response = await served.post('/v1/chat/completions', '{', headers as Record<string, string>);
    expect(response.status).toBe(401);
    expect(await response.json()).toMatchObject({
      error: { type: 'authentication_error', code: 'invalid_api_key' },
    });
  }
  expect((await fetch(`${served.url}/v1/models`)).status).toBe(401);
  expect((await fetch(`${served.url}/ready`)).status).toBe(200);
  const client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'sesame', maxRetries: 0 });
  expect((await client.models.list()).data).toHaveLength(1);
});

test('a drain refuses new requests, lets those inside end, and says so on /ready', async () => {
  const served = await opened(() => ({ tokenIds: ids, gapMs: 5 }));
  const inside = await served.post('/v1/chat/completions', { ...chat, stream: true, max_tokens: 20 });
  const drained = served.server.drain(10_000);
  expect((await fetch(`${served.url}/ready`)).status).toBe(503);
  expect((await served.post('/v1/chat/completions', chat)).status).toBe(503);
  expect((await inside.text()).endsWith('data: [DONE]\n\n')).toBe(true);
  expect(await drained).toEqual({ leftCount: 0 });
});

test('close cancels what still runs and waits for its row', async () => {
  const served = await opened(() => ({ tokenIds: ids, gapMs: 5 }));
  const inside = await served.post('/v1/chat/completions', { ...chat, stream: true, max_tokens: 2000 });
  expect(await served.server.drain(20)).toEqual({ leftCount: 1 });
  await served.server.close();
  await expect(inside.text()).rejects.toThrow();
  expect(served.rows.map((row) => row.finishReason)).toEqual(['cancelled']);
});

test('a client who leaves before the answer of an unstreamed request cancels it', async () => {
  const served = await opened(() => ({ tokenIds: ids, gapMs: 5 }));
  const controller = new AbortController();
  const asked = fetch(`${served.url}/v1/chat/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ ...chat, max_tokens: 2000 }),
    signal: controller.signal,
  });
  while (served.fleet.submitted.length === 0) await new Promise((wake) => setTimeout(wake, 5));
  controller.abort();
  await expect(asked).rejects.toThrow();
  await served.rowsReach(1);
  expect(served.rows[0]).toMatchObject({ finishReason: 'cancelled', status: 499, errorCode: '' });
});

test('a reader who never reads is dropped after the limit and its sequence cancelled', async () => {
  const served = await opened(() => ({ tokenIds: ids }), {
    limits: { maxUnsentBytes: 16_384, slowReaderLimitMs: 100 },
  });
  const body = JSON.stringify({
    model: MODEL,
    prompt: Array.from({ length: 64 }, () => 'x'),
    max_tokens: 2000,
    ignore_eos: true,
    stream: true,
    return_token_ids: true,
  });
  const socket = connect(served.port, '127.0.0.1', () => {
    socket.pause();
    socket.write(
      `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
    );
  });
  socket.on('error', () => {
    // The server resets the connection; that is the point.
  });
  await served.rowsReach(64);
  expect(served.rows.every((row) => row.finishReason === 'cancelled')).toBe(true);
  expect(served.fleet.activeCount()).toBe(0);
  socket.destroy();
});

test('readers who never read hold no more than their caps, however much there is to send', async () => {
  const served = await opened(() => ({ tokenIds: ids }), {
    limits: { slowReaderLimitMs: 1500, maxQueuedRequestCount: 4096 },
  });
  const body = JSON.stringify({
    model: MODEL,
    prompt: Array.from({ length: 64 }, () => 'x'),
    max_tokens: 2000,
    ignore_eos: true,
    stream: true,
  });
  const readerCount = 12;
  const before = process.memoryUsage().rss;
  const sockets = Array.from({ length: readerCount }, () => {
    const socket = connect(served.port, '127.0.0.1', () => {
      socket.pause();
      socket.write(
        `POST /v1/completions HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`,
      );
    });
    socket.on('error', () => {
      // The server resets the connection; that is the point.
    });
    return socket;
  });
  let most = 0;
  const watch = setInterval(() => {
    most = Math.max(most, process.memoryUsage().rss - before);
  }, 20);
  // A busy machine may refuse some of them at once; what was taken must end.
  await served.rowsReach(64);
  while (served.fleet.activeCount() > 0) await new Promise((wake) => setTimeout(wake, 20));
  clearInterval(watch);
  expect(served.rows.length).toBe(served.fleet.submitted.length);
  for (const socket of sockets) socket.destroy();
  // Without the cap it was 1.2 GB: 64 answers of 2,000 tokens for each reader.
  expect(most).toBeLessThan(400 * 1024 * 1024);
  expect(served.rows.every((row) => row.finishReason === 'cancelled')).toBe(true);
});

test('the session comes from the header, else from the body', async () => {
  const served = await opened(() => ({ tokenIds: ids }));
  const body = { ...chat, max_tokens: 1, user: 'ann' };
  await (await served.post('/v1/chat/completions', body, { 'x-session-id': 's1' })).text();
  await (await served.post('/v1/chat/completions', body)).text();
  await (await served.post('/v1/chat/completions', { ...body, prompt_cache_key: 'k' })).text();
  expect(served.rows.map((row) => [row.session, row.program, row.tenant])).toEqual([
    ['s1', 's1', 'default'],
    ['ann', 'ann', 'default'],
    ['k', 'k', 'default'],
  ]);
});
