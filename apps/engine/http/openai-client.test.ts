import { Tokenizer } from '@huggingface/tokenizers';
import OpenAI from 'openai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { storyTokenizer } from '../generation/story-tokenizer.fixture.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

const loaded = storyTokenizer();
const tokenizer = new Tokenizer(loaded.tokenizerJson, loaded.tokenizerConfig);
const EOS = 2;
const story = 'Once upon a time, 大型 👩‍👩‍👧‍👦 there was a cat.';
const storyIds = [...tokenizer.encode(story).ids, EOS];

let served: Served;
let client: OpenAI;

beforeAll(async () => {
  served = await serve((spec) => ({ tokenIds: storyIds, ...(spec.program === 'slow' ? { gapMs: 20 } : {}) }));
  client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'any', maxRetries: 0 });
});
afterAll(() => served.close());

const messages = [{ role: 'user' as const, content: 'Tell me a story.' }];

test('a whole chat completion', async () => {
  const { data, response } = await client.chat.completions.create({ model: MODEL, messages }).withResponse();
  expect(data.choices[0]).toMatchObject({
    index: 0,
    finish_reason: 'stop',
    message: { role: 'assistant', content: story },
  });
  expect(data.usage).toEqual({
    prompt_tokens: 16,
    completion_tokens: storyIds.length,
    total_tokens: 16 + storyIds.length,
    prompt_tokens_details: { cached_tokens: 4 },
    completion_tokens_details: {
      reasoning_tokens: 0,
      accepted_prediction_tokens: 0,
      rejected_prediction_tokens: 0,
    },
  });
  expect(data.id).toMatch(/^chatcmpl-/);
  expect(response.headers.get('x-request-id')).toMatch(/^req_/);
});

test('a streamed chat completion: role first, usage last with no choices, null before', async () => {
  const stream = await client.chat.completions.create({
    model: MODEL,
    messages,
    stream: true,
    stream_options: { include_usage: true },
  });
  const chunks = [];
  for await (const chunk of stream) chunks.push(chunk);
  expect(chunks[0]?.choices[0]?.delta.role).toBe('assistant');
  expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join('')).toBe(story);
  expect(chunks.at(-2)?.choices[0]?.finish_reason).toBe('stop');
  expect(chunks.at(-1)).toMatchObject({ choices: [], usage: { completion_tokens: storyIds.length } });
  expect(chunks.slice(0, -1).every((chunk) => chunk.usage === null)).toBe(true);
  expect(new Set(chunks.map((chunk) => chunk.id)).size).toBe(1);
});

test("the client's stream helper", async () => {
  const runner = client.chat.completions.stream({ model: MODEL, messages, max_completion_tokens: 5 });
  const final = await runner.finalChatCompletion();
  expect(final.choices[0]?.finish_reason).toBe('length');
  expect(final.choices[0]?.message.content).toBe(tokenizer.decode(storyIds.slice(0, 5)));
});

test('text completions: one prompt, several prompts, token ids', async () => {
  const one = await client.completions.create({ model: MODEL, prompt: 'Once', max_tokens: 64 });
  expect(one.choices[0]).toMatchObject({ index: 0, text: story, finish_reason: 'stop' });
  const several = await client.completions.create({ model: MODEL, prompt: ['a', 'b', 'c'], max_tokens: 2 });
  expect(several.choices.map((choice) => choice.index)).toEqual([0, 1, 2]);
  expect(several.usage?.completion_tokens).toBe(6);
  const ids = await client.completions.create({ model: MODEL, prompt: [[5, 6], [7]], max_tokens: 1 });
  expect(ids.usage?.prompt_tokens).toBe(3);
  expect(served.fleet.submitted.slice(-2).map((spec) => spec.promptTokenIds)).toEqual([[5, 6], [7]]);
  const stream = await client.completions.create({
    model: MODEL,
    prompt: ['a', 'b'],
    max_tokens: 64,
    stream: true,
    stream_options: { include_usage: true },
  });
  const texts = ['', ''];
  const reasons: string[] = [];
  for await (const chunk of stream) {
    for (const choice of chunk.choices) {
      texts[choice.index] += choice.text;
      if (choice.finish_reason !== null) reasons.push(choice.finish_reason);
    }
  }
  expect(texts).toEqual([story, story]);
  expect(reasons).toEqual(['stop', 'stop']);
});

test('sampling parameters and the seed reach the fleet; without ignore_eos so do the end tokens', async () => {
  await client.chat.completions.create({
    model: MODEL,
    messages,
    temperature: 0,
    top_p: 0.25,
    seed: 42,
    max_tokens: 3,
  });
  expect(served.fleet.submitted.at(-1)).toMatchObject({
    sampling: { temperature: 0, topP: 0.25, topK: 40, seed: 42 },
    maxTokens: 3,
    stopTokenIds: [2, 0],
  });
  const whole = await served.post('/v1/completions', {
    model: MODEL,
    prompt: 'x',
    ignore_eos: true,
    max_tokens: storyIds.length + 3,
  });
  expect(await whole.json()).toMatchObject({ choices: [{ finish_reason: 'length' }] });
});

test('a stop string cuts the text, ends the sequence and is not shown', async () => {
  const stream = await client.chat.completions.create({
    model: MODEL,
    messages,
    stop: [', ', 'cat'],
    stream: true,
  });
  let text = '';
  let reason: string | null = null;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? '';
    reason = chunk.choices[0]?.finish_reason ?? reason;
  }
  expect({ text, reason }).toEqual({ text: 'Once upon a time', reason: 'stop' });
  expect(served.fleet.endings.at(-1)).toMatchObject({ reason: 'stop' });
  expect(served.fleet.endings.at(-1)?.tokenCount).toBeLessThan(storyIds.length);
});

test('token ids as vLLM returns them', async () => {
  const body = { model: MODEL, messages, return_token_ids: true };
  const whole = (await (await served.post('/v1/chat/completions', body)).json()) as {
    prompt_token_ids: number[];
    choices: { token_ids: number[] }[];
  };
  expect(whole.prompt_token_ids).toEqual([
    1, 521, 277, 201, 508, 379, 261, 392, 16, 2, 201, 1, 970, 675, 625, 201,
  ]);
  expect(whole.choices[0]?.token_ids).toEqual(storyIds);

  const stream = await served.post('/v1/chat/completions', { ...body, stream: true });
  const lines = (await stream.text()).split('\n\n').filter((line) => line.startsWith('data: {'));
  const chunks = lines.map((line) => JSON.parse(line.slice(6)) as typeof whole);
  expect(chunks[0]?.prompt_token_ids).toEqual(whole.prompt_token_ids);
  expect(chunks.slice(1).every((chunk) => chunk.prompt_token_ids === undefined)).toBe(true);
  expect(chunks.flatMap((chunk) => chunk.choices[0]?.token_ids ?? [])).toEqual(storyIds);

  const completion = await served.post('/v1/completions', {
    model: MODEL,
    prompt: [5, 6],
    return_token_ids: true,
    max_tokens: 2,
  });
  expect(await completion.json()).toMatchObject({
    choices: [{ prompt_token_ids: [5, 6], token_ids: storyIds.slice(0, 2) }],
  });
});

test('a client who aborts cancels its sequence at once; its row still comes, and other streams go on', async () => {
  const other = client.chat.completions.create({ model: MODEL, messages, max_tokens: 200, user: 'slow' });
  const rowsBefore = served.rows.length;
  const abort = new AbortController();
  const stream = await client.chat.completions.create(
    { model: MODEL, messages, stream: true, user: 'slow' },
    { signal: abort.signal },
  );
  let seen = 0;
  for await (const _chunk of stream) {
    seen += 1;
    if (seen === 3) abort.abort();
  }
  await served.rowsReach(rowsBefore + 1);
  const row = served.rows.at(-1);
  expect(row).toMatchObject({
    finishReason: 'cancelled',
    status: 200,
    isStreamed: true,
    isAccountFinal: true,
  });
  expect(row?.completionTokenCount).toBeLessThan(storyIds.length);
  expect((await other).choices[0]?.message.content).toBe(story);
  expect(served.fleet.activeCount()).toBe(0);
});

test('models are listed and found', async () => {
  const list = await client.models.list();
  expect(list.data).toMatchObject([{ id: MODEL, object: 'model', max_model_len: 2048 }]);
  expect((await client.models.retrieve(MODEL)).id).toBe(MODEL);
  await expect(client.models.retrieve('gpt-5')).rejects.toThrow(OpenAI.NotFoundError);
});

test("errors arrive as the client's own classes", async () => {
  const wrong = client.chat.completions.create({ model: 'gpt-5', messages });
  await expect(wrong).rejects.toMatchObject({ status: 404, code: 'model_not_found', param: 'model' });
  const many = client.chat.completions.create({ model: MODEL, messages, n: 99 });
  await expect(many).rejects.toBeInstanceOf(OpenAI.BadRequestError);
});

test('every admitted request has left exactly one row, and its figures are its own', async () => {
  await served.rowsReach(served.fleet.submitted.length);
  const ids = served.rows.map((row) => row.requestId);
  expect(new Set(ids).size).toBe(ids.length);
  expect([...ids].sort()).toEqual(served.fleet.submitted.map((spec) => spec.sequenceId).sort());
  for (const row of served.rows) {
    const ending = served.fleet.endings.find((each) => each.sequenceId === row.requestId);
    expect(row.completionTokenCount).toBe(ending?.tokenCount);
    expect(row.decodeDeviceMs).toBe(ending?.tokenCount);
    expect(row.ttftMs).toBeGreaterThan(0);
    expect(row.e2eMs).toBeGreaterThanOrEqual(row.ttftMs);
    expect(row.itlMaxMs).toBeGreaterThanOrEqual(row.itlP95Ms);
    // Queue, prefill and decode are parts of the whole.
    expect(row.queueMs + row.prefillMs + row.decodeMs).toBeLessThanOrEqual(row.e2eMs + 1);
    expect(row.outcome).toBe(
      { stop: 'ok', length: 'ok', error: 'failed' }[row.finishReason as string] ?? row.finishReason,
    );
  }
});
