import { afterAll, beforeAll, expect, test } from 'vitest';
import { MODEL, type Served, serve } from './served.fixture.ts';

let served: Served;
let stalled = '';
beforeAll(async () => {
  served = await serve(() => ({ tokenIds: [437, 464, 261] }), {
    servedModelNames: ['org/story', 'gpt-4o'],
    stalledReason: () => stalled,
    version: '1.2.3',
  });
});
afterAll(() => served.close());

const json = async (response: Response) => (await response.json()) as Record<string, unknown>;
const chat = { model: 'gpt-4o', messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 };

test('the model is listed under each of its names, and answers report the first', async () => {
  const list = (await json(await fetch(`${served.url}/v1/models`))) as {
    data: { id: string; root: string }[];
  };
  expect(list.data.map(({ id, root }) => [id, root])).toEqual([
    ['org/story', 'org/story'],
    ['gpt-4o', 'org/story'],
  ]);
  for (const url of ['/v1/models/org/story', '/v1/models/org%2Fstory', '/v1/models/gpt-4o?x=1']) {
    expect((await fetch(`${served.url}${url}`)).status).toBe(200);
  }
  const unknown = await fetch(`${served.url}/v1/models/${MODEL}`);
  expect(unknown.status).toBe(404);
  expect(await json(unknown)).toMatchObject({
    error: { message: expect.stringContaining('"org/story", "gpt-4o"'), code: 'model_not_found' },
  });
  expect(await json(await served.post('/v1/chat/completions', chat))).toMatchObject({ model: 'org/story' });
  await served.rowsReach(1);
  expect(served.rows[0]?.modelId).toBe(MODEL);
});

test('tokenize counts a prompt with and without the start token, and spells its tokens', async () => {
  const plain = await json(await served.post('/tokenize', { prompt: 'Once upon', return_token_strs: true }));
  expect(plain).toMatchObject({ max_model_len: 2048, token_strs: expect.any(Array) });
  expect(plain.count).toBe((plain.tokens as number[]).length);
  expect((plain.token_strs as string[]).length).toBe(plain.count);
  const bare = await json(
    await served.post('/tokenize', { model: 'gpt-4o', prompt: 'Once upon', add_special_tokens: false }),
  );
  expect(bare.token_strs).toBeNull();
  expect((plain.tokens as number[]).slice(-(bare.count as number))).toEqual(bare.tokens);
});

test('tokenize of messages counts what a request with them is charged for', async () => {
  const tokens = await json(await served.post('/tokenize', { messages: chat.messages }));
  const answer = await json(await served.post('/v1/chat/completions', chat));
  expect((answer.usage as { prompt_tokens: number }).prompt_tokens).toBe(tokens.count);
  const unopened = await json(
    await served.post('/tokenize', { messages: chat.messages, add_generation_prompt: false }),
  );
  expect(unopened.count).toBeLessThan(tokens.count as number);
});

test('detokenize gives back the text that was tokenised', async () => {
  const prompt = 'Zażółć gęślą jaźń 你好 👩‍👩‍👧\n\t end';
  const { tokens } = await json(await served.post('/tokenize', { prompt, add_special_tokens: false }));
  expect(await json(await served.post('/detokenize', { tokens }))).toEqual({ prompt });
  expect(await json(await served.post('/detokenize', { tokens: [] }))).toEqual({ prompt: '' });
});

test.each([
  ['/tokenize', {}, 'missing_required_parameter', 'prompt'],
  ['/tokenize', { prompt: 'a', messages: chat.messages }, 'invalid_value', 'prompt'],
  ['/tokenize', { prompt: 5 }, 'invalid_type', 'prompt'],
  ['/tokenize', { prompt: 'a\0' }, 'invalid_value', 'prompt'],
  ['/tokenize', { prompt: 'word '.repeat(100_000) }, 'context_length_exceeded', 'prompt'],
  ['/tokenize', { messages: [] }, 'invalid_value', 'messages'],
  [
    '/tokenize',
    { messages: chat.messages, add_special_tokens: true },
    'unsupported_parameter',
    'add_special_tokens',
  ],
  [
    '/tokenize',
    { messages: chat.messages, continue_final_message: true },
    'unsupported_parameter',
    'continue_final_message',
  ],
  ['/tokenize', { prompt: 'a', wish: 1 }, 'unsupported_parameter', 'wish'],
  ['/detokenize', {}, 'missing_required_parameter', 'tokens'],
  ['/detokenize', { tokens: 'a' }, 'invalid_type', 'tokens'],
  ['/detokenize', { tokens: [1.5] }, 'invalid_type', 'tokens'],
  ['/detokenize', { tokens: [-1] }, 'invalid_type', 'tokens'],
  ['/detokenize', { tokens: [2048] }, 'invalid_token_id', 'tokens'],
  ['/detokenize', { tokens: Array(2049).fill(5) }, 'invalid_value', 'tokens'],
])('%s refuses %j by name', async (path, body, code, param) => {
  const response = await served.post(path, body);
  expect(response.status).toBe(400);
  expect(await json(response)).toMatchObject({ error: { code, param, type: 'invalid_request_error' } });
});

test('an unknown model is a 404 for tokens too', async () => {
  expect((await served.post('/tokenize', { model: 'no', prompt: 'a' })).status).toBe(404);
  expect((await served.post('/detokenize', { model: 'no', tokens: [5] })).status).toBe(404);
});

test('the probes tell health, readiness and version; a stall is not ready, and still healthy', async () => {
  expect(await json(await fetch(`${served.url}/version`))).toEqual({ version: '1.2.3' });
  expect(await json(await fetch(`${served.url}/ready`))).toEqual({ status: 'ready' });
  stalled = 'worker-0 has 3 requests and has made no step for 40 s.';
  const unready = await fetch(`${served.url}/ready`);
  expect([unready.status, unready.headers.get('retry-after')]).toEqual([503, '1']);
  expect(await json(unready)).toEqual({ status: 'unready', reason: stalled });
  expect((await fetch(`${served.url}/health`)).status).toBe(200);
  stalled = '';
});

test('HEAD is GET without a body, OPTIONS names the methods, others are refused with them', async () => {
  const head = await fetch(`${served.url}/v1/models`, { method: 'HEAD' });
  expect([head.status, await head.text()]).toEqual([200, '']);
  const options = await fetch(`${served.url}/v1/models`, { method: 'OPTIONS' });
  expect([options.status, options.headers.get('allow'), await options.text()]).toEqual([
    204,
    'GET, HEAD',
    '',
  ]);
  for (const method of ['PUT', 'PATCH', 'DELETE', 'GET']) {
    const refused = await fetch(`${served.url}/v1/chat/completions`, { method });
    expect([refused.status, refused.headers.get('allow')]).toEqual([405, 'POST']);
  }
});

test('an answer carries its id, its time and what the door still takes, streamed or not', async () => {
  for (const stream of [false, true]) {
    const response = await served.post(
      '/v1/chat/completions',
      { ...chat, stream },
      { 'x-request-id': 'run-7/a' },
    );
    await response.text();
    const header = (name: string) => response.headers.get(name);
    expect(header('x-request-id')).toBe('run-7/a');
    expect(Number(header('openai-processing-ms'))).toBeGreaterThanOrEqual(0);
    expect(header('x-ratelimit-limit-requests')).toBe('256');
    expect(Number(header('x-ratelimit-remaining-requests'))).toBeGreaterThanOrEqual(255);
    expect(header('x-ratelimit-limit-tokens')).toBe('1000000');
    expect(header('x-ratelimit-reset-requests')).toMatch(/^(\d+m)?[\d.]+m?s$/);
  }
});

test('an id that cannot stand in a log is replaced', async () => {
  for (const id of ['two words', 'x'.repeat(129), 'a"b', '']) {
    const response = await fetch(`${served.url}/version`, { headers: { 'x-request-id': id } });
    expect(response.headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/);
  }
});

test('what can never fit says that trying again is no use', async () => {
  const long = { ...chat, messages: [{ role: 'user', content: 'word '.repeat(3000) }] };
  const response = await served.post('/v1/chat/completions', long);
  expect([response.status, response.headers.get('x-should-retry')]).toEqual([400, 'false']);
});
