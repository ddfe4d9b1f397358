import { connect } from 'node:net';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { MODEL, type Served, serve } from './served.fixture.ts';

let served: Served;
beforeAll(async () => {
  served = await serve(() => ({ tokenIds: [437, 464, 261] }), { limits: { maxBodyBytes: 600_000 } });
});
afterAll(() => served.close());

const user = { role: 'user', content: 'Hi' };
const chat = { model: MODEL, messages: [user], max_tokens: 2 };
const text = { model: MODEL, prompt: 'Hi', max_tokens: 2 };
const withChat = (changes: object): object => ({ ...chat, ...changes });
const deep = `{"model":"${MODEL}","messages":${'['.repeat(100_000)}${']'.repeat(100_000)}}`;

/** body, status, code, param. */
const chats: [name: string, body: unknown, status: number, code: string, param: string | null][] = [
  ['malformed JSON', '{"model":', 400, 'invalid_json', null],
  ['an empty body', '', 400, 'invalid_json', null],
  ['NaN, which is not JSON', '{"model":"m","temperature":NaN}', 400, 'invalid_json', null],
  ['bytes that are not UTF-8', new Uint8Array([0x7b, 0x22, 0xff, 0x22, 0x7d]), 400, 'invalid_json', null],
  ['JSON 100,000 levels deep', deep, 400, 'invalid_json', null],
  ['a key given twice', `{"model":"${MODEL}","model":"${MODEL}","messages":[]}`, 400, 'invalid_json', null],
  ['a __proto__ key', `{"model":"${MODEL}","messages":[],"__proto__":{"n":1}}`, 400, 'invalid_json', null],
  [
    '20,000 keys',
    JSON.stringify(Object.fromEntries(Array.from({ length: 20_000 }, (_, i) => [`k${i}`, 1]))),
    400,
    'invalid_json',
    null,
  ],
  ['a list for a body', [], 400, 'invalid_type', null],
  ['null for a body', 'null', 400, 'invalid_type', null],
  ['a string for a body', '"hello"', 400, 'invalid_type', null],
  ['no model', { messages: [user] }, 400, 'missing_required_parameter', 'model'],
  ['a model that is no string', withChat({ model: 5 }), 400, 'invalid_type', 'model'],
  ['an unknown model', withChat({ model: 'gpt-5' }), 404, 'model_not_found', 'model'],
  ['no messages', { model: MODEL }, 400, 'missing_required_parameter', 'messages'],
  ['empty messages', withChat({ messages: [] }), 400, 'invalid_value', 'messages'],
  ['messages that are a string', withChat({ messages: 'Hi' }), 400, 'invalid_type', 'messages'],
  [
    '100,000 messages',
    withChat({ messages: Array.from({ length: 100_000 }, () => 1) }),
    400,
    'invalid_value',
    'messages',
  ],
  [
    'a message without content',
    withChat({ messages: [{ role: 'user' }] }),
    400,
    'invalid_type',
    'messages[0].content',
  ],
  [
    'a message with content null',
    withChat({ messages: [{ role: 'user', content: null }] }),
    400,
    'invalid_type',
    'messages[0].content',
  ],
  [
    'an unknown role',
    withChat({ messages: [{ role: 'king', content: 'x' }] }),
    400,
    'invalid_value',
    'messages[0].role',
  ],
  [
    'a tool message',
    withChat({ messages: [{ role: 'tool', content: 'x' }] }),
    400,
    'unsupported_parameter',
    'messages[0].role',
  ],
  [
    'an unknown key in a message',
    withChat({ messages: [{ ...user, mood: 'x' }] }),
    400,
    'unsupported_parameter',
    'messages[0].mood',
  ],
  [
    'an image part',
    withChat({ messages: [{ role: 'user', content: [{ type: 'image_url', image_url: { url: 'x' } }] }] }),
    400,
    'unsupported_parameter',
    'messages[0].content[0].type',
  ],
  [
    'a NUL character',
    withChat({ messages: [{ role: 'user', content: 'a\0b' }] }),
    400,
    'invalid_value',
    'messages[0].content',
  ],
  [
    'half a surrogate pair',
    '{"model":"stories-5m","messages":[{"role":"user","content":"\\ud800"}]}',
    400,
    'invalid_value',
    'messages[0].content',
  ],
  [
    'a prompt too long',
    withChat({ messages: [{ role: 'user', content: 'word '.repeat(3000) }] }),
    400,
    'context_length_exceeded',
    'messages',
  ],
  [
    'a prompt far too long',
    withChat({ messages: [{ role: 'user', content: 'word '.repeat(100_000) }] }),
    400,
    'context_length_exceeded',
    'messages',
  ],
  [
    'a body over the limit',
    withChat({ messages: [{ role: 'user', content: 'x'.repeat(700_000) }] }),
    413,
    'request_too_large',
    null,
  ],
  ['temperature as a string', withChat({ temperature: '0.5' }), 400, 'invalid_type', 'temperature'],
  [
    'temperature 1e999',
    '{"model":"stories-5m","messages":[{"role":"user","content":"x"}],"temperature":1e999}',
    400,
    'invalid_type',
    'temperature',
  ],
  ['temperature below 0', withChat({ temperature: -1 }), 400, 'invalid_value', 'temperature'],
  ['temperature above 2', withChat({ temperature: 2.1 }), 400, 'invalid_value', 'temperature'],
  ['top_p 0', withChat({ top_p: 0 }), 400, 'invalid_value', 'top_p'],
  ['top_p above 1', withChat({ top_p: 1.01 }), 400, 'invalid_value', 'top_p'],
  ['top_k -2', withChat({ top_k: -2 }), 400, 'invalid_value', 'top_k'],
  ['top_k with a fraction', withChat({ top_k: 1.5 }), 400, 'invalid_type', 'top_k'],
  [
    'a seed beyond what JSON holds exactly',
    '{"model":"stories-5m","messages":[{"role":"user","content":"x"}],"seed":9007199254740993}',
    400,
    'invalid_value',
    'seed',
  ],
  ['a huge n', withChat({ n: 1_000_000_000 }), 400, 'invalid_value', 'n'],
  ['n as a string', withChat({ n: 'two' }), 400, 'invalid_type', 'n'],
  ['n of 0', withChat({ n: 0 }), 400, 'invalid_value', 'n'],
  ['max_tokens 0', withChat({ max_tokens: 0 }), 400, 'invalid_value', 'max_tokens'],
  ['max_tokens -1', withChat({ max_tokens: -1 }), 400, 'invalid_value', 'max_tokens'],
  ['two limits that differ', withChat({ max_completion_tokens: 7 }), 400, 'invalid_value', 'max_tokens'],
  ['five stop strings', withChat({ stop: ['a', 'b', 'c', 'd', 'e'] }), 400, 'invalid_type', 'stop'],
  ['an empty stop string', withChat({ stop: '' }), 400, 'invalid_value', 'stop'],
  ['a stop string of 300 characters', withChat({ stop: 'x'.repeat(300) }), 400, 'invalid_value', 'stop'],
  ['stream as a string', withChat({ stream: 'true' }), 400, 'invalid_type', 'stream'],
  [
    'stream_options without stream',
    withChat({ stream_options: { include_usage: true } }),
    400,
    'invalid_value',
    'stream_options',
  ],
  [
    'an unknown stream option',
    withChat({ stream: true, stream_options: { usage: true } }),
    400,
    'unsupported_parameter',
    'stream_options.usage',
  ],
  ['an unknown parameter', withChat({ temprature: 1 }), 400, 'unsupported_parameter', 'temprature'],
  ['an unknown parameter that is null', withChat({ foo: null }), 400, 'unsupported_parameter', 'foo'],
  [
    'a parameter named like a method',
    withChat({ constructor: 1 }),
    400,
    'unsupported_parameter',
    'constructor',
  ],
  [
    'tools',
    withChat({ tools: [{ type: 'function', function: { name: 'f' } }] }),
    400,
    'unsupported_parameter',
    'tools',
  ],
  ['logprobs as a number', withChat({ logprobs: 5 }), 400, 'invalid_type', 'logprobs'],
  [
    'too many top_logprobs',
    withChat({ logprobs: true, top_logprobs: 21 }),
    400,
    'invalid_value',
    'top_logprobs',
  ],
  ['top_logprobs without logprobs', withChat({ top_logprobs: 2 }), 400, 'invalid_value', 'top_logprobs'],
  ['a bias of no token', withChat({ logit_bias: { 99999: 1 } }), 400, 'invalid_token_id', 'logit_bias'],
  ['a bias of a word', withChat({ logit_bias: { cat: 1 } }), 400, 'invalid_value', 'logit_bias.cat'],
  ['a bias too far', withChat({ logit_bias: { 5: 101 } }), 400, 'invalid_value', 'logit_bias.5'],
  [
    'a thousand biases and more',
    withChat({ logit_bias: Object.fromEntries(Array.from({ length: 1025 }, (_, id) => [id, 1])) }),
    400,
    'invalid_value',
    'logit_bias',
  ],
  ['a penalty too large', withChat({ frequency_penalty: 2.5 }), 400, 'invalid_value', 'frequency_penalty'],
  [
    'a repetition penalty of 0',
    withChat({ repetition_penalty: 0 }),
    400,
    'invalid_value',
    'repetition_penalty',
  ],
  ['min_p above 1', withChat({ min_p: 1.5 }), 400, 'invalid_value', 'min_p'],
  [
    'min_tokens above max_tokens',
    withChat({ min_tokens: 9, max_tokens: 8 }),
    400,
    'invalid_value',
    'min_tokens',
  ],
  [
    'a stop token of no vocabulary',
    withChat({ stop_token_ids: [99999] }),
    400,
    'invalid_token_id',
    'stop_token_ids',
  ],
  [
    'a response format',
    withChat({ response_format: { type: 'json_object' } }),
    400,
    'unsupported_parameter',
    'response_format',
  ],
  ['a chat template', withChat({ chat_template: '{{ 1 }}' }), 400, 'unsupported_parameter', 'chat_template'],
  [
    'a service tier that is not sold',
    withChat({ service_tier: 'scale' }),
    400,
    'invalid_value',
    'service_tier',
  ],
  ['a user that is no string', withChat({ user: 5 }), 400, 'invalid_type', 'user'],
  ['metadata that is no map of strings', withChat({ metadata: { a: 1 } }), 400, 'invalid_type', 'metadata.a'],
];
test.each(chats)('chat: %s', async (_name, body, status, code, param) => {
  await expectRefusal(await served.post('/v1/chat/completions', body), status, code, param);
});

const withText = (changes: object): object => ({ ...text, ...changes });
const completions: typeof chats = [
  ['no prompt', { model: MODEL }, 400, 'missing_required_parameter', 'prompt'],
  ['an empty prompt', withText({ prompt: '' }), 400, 'invalid_value', 'prompt'],
  ['an empty list', withText({ prompt: [] }), 400, 'invalid_type', 'prompt'],
  ['a number', withText({ prompt: 5 }), 400, 'invalid_type', 'prompt'],
  ['65 prompts', withText({ prompt: Array.from({ length: 65 }, () => 'x') }), 400, 'invalid_value', 'prompt'],
  [
    '150,000 empty lists',
    withText({ prompt: Array.from({ length: 150_000 }, () => []) }),
    400,
    'invalid_value',
    'prompt',
  ],
  ['one empty prompt of two', withText({ prompt: ['a', ''] }), 400, 'invalid_value', 'prompt[1]'],
  ['a token id outside the vocabulary', withText({ prompt: [5, 2048] }), 400, 'invalid_token_id', 'prompt'],
  [
    'a token id outside the vocabulary, second prompt',
    withText({ prompt: [[5], [99_999]] }),
    400,
    'invalid_token_id',
    'prompt[1]',
  ],
  ['a negative token id', withText({ prompt: [5, -1] }), 400, 'invalid_type', 'prompt'],
  ['a token id with a fraction', withText({ prompt: [5, 0.5] }), 400, 'invalid_type', 'prompt'],
  ['ids and text mixed', withText({ prompt: [5, 'x'] }), 400, 'invalid_type', 'prompt'],
  [
    'too many token ids',
    withText({ prompt: Array.from({ length: 2048 }, () => 5) }),
    400,
    'context_length_exceeded',
    'prompt',
  ],
  ['a NUL character', withText({ prompt: 'a\0' }), 400, 'invalid_value', 'prompt'],
  ['a huge best_of', withText({ best_of: 100_000 }), 400, 'invalid_value', 'best_of'],
  ['best_of above n', withText({ best_of: 3, n: 2 }), 400, 'unsupported_parameter', 'best_of'],
  ['too many answers', withText({ prompt: Array(30).fill('a'), n: 3 }), 400, 'invalid_value', 'n'],
  ['echo with logprobs', withText({ echo: true, logprobs: 1 }), 400, 'unsupported_parameter', 'echo'],
  ['suffix', withText({ suffix: 'x' }), 400, 'unsupported_parameter', 'suffix'],
  ['too many logprobs', withText({ logprobs: 21 }), 400, 'invalid_value', 'logprobs'],
  ['logprobs as true', withText({ logprobs: true }), 400, 'invalid_type', 'logprobs'],
  ['messages', withText({ messages: [] }), 400, 'unsupported_parameter', 'messages'],
];
test.each(completions)('completion: %s', async (_name, body, status, code, param) => {
  await expectRefusal(await served.post('/v1/completions', body), status, code, param);
});

test('what changes nothing is accepted: neutral values, nulls, keys without effect', async () => {
  const response = await served.post('/v1/chat/completions', {
    ...chat,
    messages: [
      {
        role: 'developer',
        content: [
          { type: 'text', text: 'Be' },
          { type: 'text', text: 'kind.' },
        ],
      },
      { ...user, name: 'Ann' },
      {
        role: 'assistant',
        content: 'Yes',
        refusal: null,
        annotations: [],
        tool_calls: [],
        function_call: null,
        audio: null,
      },
      user,
    ],
    n: 1,
    frequency_penalty: 0,
    presence_penalty: 0,
    logprobs: false,
    top_logprobs: null,
    logit_bias: {},
    tools: [],
    response_format: { type: 'text' },
    tool_choice: 'none',
    modalities: ['text'],
    reasoning_effort: null,
    stop: null,
    seed: null,
    temperature: null,
    stream: null,
    stream_options: null,
    prediction: null,
    service_tier: 'auto',
    user: 'ann',
    metadata: { a: 'b' },
    store: true,
    prompt_cache_key: 'k',
    safety_identifier: 's',
    parallel_tool_calls: true,
    max_completion_tokens: 2,
  });
  expect(await response.json()).toMatchObject({ choices: [{ finish_reason: 'length' }] });
  expect(response.status).toBe(200);
});

test('unknown routes, wrong methods and wrong media types have the same shape', async () => {
  await expectRefusal(await fetch(`${served.url}/v2/nothing`), 404, 'unknown_url', null);
  await expectRefusal(await served.post('/v1/nothing', '{'), 404, 'unknown_url', null);
  await expectRefusal(await fetch(`${served.url}/v1/chat/completions`), 405, 'method_not_allowed', null);
  await expectRefusal(await served.post('/health', {}), 405, 'method_not_allowed', null);
  await expectRefusal(
    await fetch(`${served.url}/v1/models`, { method: 'DELETE' }),
    405,
    'method_not_allowed',
    null,
  );
  const form = await served.post('/v1/completions', 'a=b', {
    'content-type': 'application/x-www-form-urlencoded',
  });
  await expectRefusal(form, 415, 'unsupported_media_type', null);
});

test('what is not HTTP is answered and closed', async () => {
  const reply = await new Promise<string>((resolve, reject) => {
    const socket = connect(served.port, '127.0.0.1', () => socket.write('GARBAGE\r\n\r\n'));
    let received = '';
    socket.on('data', (chunk) => {
      received += chunk;
    });
    socket.on('close', () => resolve(received));
    socket.on('error', reject);
  });
  expect(reply).toMatch(/^HTTP\/1.1 400/);
  expect(reply).toContain('"type":"invalid_request_error"');
});

test('none of it reached the fleet or failed within, and a good request is served', async () => {
  const before = served.fleet.submitted.length;
  expect(served.logged).toEqual([]);
  expect(served.rows.length).toBe(before);
  const response = await served.post('/v1/chat/completions', chat);
  expect(response.status).toBe(200);
  await response.json();
  const metrics = await (await fetch(`${served.url}/metrics`)).text();
  const counts = [...metrics.matchAll(/^variator:requests_refused_total\{code="\w+"\} (\d+)$/gm)];
  const total = counts.reduce((sum, [, count]) => sum + Number(count), 0);
  expect(total).toBeGreaterThan(80);
});

async function expectRefusal(
  response: Response,
  status: number,
  code: string,
  param: string | null,
): Promise<void> {
  const body = (await response.json()) as { error: { message: string; type: string } };
  expect({ status: response.status, ...body }).toMatchObject({ status, error: { code, param } });
  expect(Object.keys(body)).toEqual(['error']);
  expect(Object.keys(body.error).sort()).toEqual(['code', 'message', 'param', 'type']);
  expect(body.error.type).toBe('invalid_request_error');
  expect(body.error.message.length).toBeGreaterThan(10);
  expect(response.headers.get('x-request-id')).toMatch(/^req_[0-9a-f]{32}$/);
}
