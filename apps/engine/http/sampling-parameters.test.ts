/** Every parameter that changes the output, from the body to real kernels and back: a worker process on the story model. */
import OpenAI from 'openai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { type RealWorkers, realWorkers } from '../fleet/real-workers.fixture.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

let workers: RealWorkers;
let served: Served;
let client: OpenAI;
beforeAll(async () => {
  workers = await realWorkers({ workerCount: 1 });
  await workers.joinedCount(1);
  served = await serve(() => ({ tokenIds: [1] }), { fleet: workers.fleet });
  client = new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'any', maxRetries: 0 });
});
afterAll(async () => {
  await served.close();
  await workers.close();
});

interface Completion {
  readonly choices: {
    readonly index: number;
    readonly text: string;
    readonly token_ids: number[];
    readonly finish_reason: string;
    readonly logprobs: {
      readonly tokens: string[];
      readonly token_logprobs: number[];
      readonly top_logprobs: Record<string, number>[];
      readonly text_offset: number[];
    } | null;
  }[];
  readonly usage: { readonly prompt_tokens: number; readonly completion_tokens: number };
}

async function complete(body: Record<string, unknown>): Promise<Completion> {
  const response = await served.post('/v1/completions', {
    model: MODEL,
    prompt: 'Once upon a time',
    temperature: 0,
    max_tokens: 24,
    ignore_eos: true,
    return_token_ids: true,
    ...body,
  });
  const answer = (await response.json()) as Completion & { error?: unknown };
  expect(answer.error).toBeUndefined();
  return answer;
}

const idsOf = async (body: Record<string, unknown>): Promise<number[]> =>
  (await complete(body)).choices[0]?.token_ids ?? [];

test('n answers come by index, the first as if alone, each of a seed of its own, and again the same', async () => {
  const seeded = { temperature: 1.2, seed: 7, max_tokens: 12 };
  const alone = await idsOf(seeded);
  const four = await complete({ ...seeded, n: 4 });
  expect(four.choices.map(({ index }) => index)).toEqual([0, 1, 2, 3]);
  expect(four.choices[0]?.token_ids).toEqual(alone);
  expect(new Set(four.choices.map(({ text }) => text)).size).toBe(4);
  expect(await complete({ ...seeded, n: 4 })).toMatchObject({
    choices: four.choices.map(({ text, token_ids }) => ({ text, token_ids })),
  });
  const one = await complete(seeded);
  expect(four.usage.prompt_tokens).toBe(one.usage.prompt_tokens);
  expect(four.usage.completion_tokens).toBe(48);
});

test('n answers of two prompts, streamed: each text whole under its own index', async () => {
  const body = { prompt: ['The dog', 'The cat'], n: 2, max_tokens: 8, temperature: 1, seed: 3 };
  const whole = await complete(body);
  const stream = await client.completions.create({
    model: MODEL,
    stream: true,
    ...body,
    ignore_eos: true,
  } as never);
  const texts = ['', '', '', ''];
  for await (const chunk of stream as unknown as AsyncIterable<OpenAI.Completion>) {
    for (const choice of chunk.choices) texts[choice.index] += choice.text;
  }
  expect(texts).toEqual(whole.choices.map(({ text }) => text));
});

test('a bias forces and forbids tokens', async () => {
  const plain = await idsOf({ max_tokens: 4 });
  const [favourite = 0] = plain;
  expect(await idsOf({ max_tokens: 4, logit_bias: { 300: 100 } })).toEqual([300, 300, 300, 300]);
  expect(await idsOf({ max_tokens: 4, logit_bias: { [favourite]: -100 } })).not.toContain(favourite);
});

test('penalties keep a repeated token away, and stop tokens end an answer, not before min_tokens', async () => {
  // One token far above all others, until it has been penalised often enough.
  const repeating = { max_tokens: 64, logit_bias: { 300: 100 } };
  const others = (ids: readonly number[]): number => ids.filter((id) => id !== 300).length;
  expect(others(await idsOf(repeating))).toBe(0);
  expect(others(await idsOf({ ...repeating, frequency_penalty: 2 }))).toBeGreaterThan(0);
  expect(others(await idsOf({ ...repeating, repetition_penalty: 100 }))).toBeGreaterThan(0);
  expect(await idsOf({ max_tokens: 20, repetition_penalty: 1.5 })).not.toEqual(
    await idsOf({ max_tokens: 20 }),
  );

  const ids = await idsOf({ max_tokens: 12 });
  const stopId = ids[3] ?? 0;
  const first = ids.indexOf(stopId);
  const stopped = await complete({ max_tokens: 12, stop_token_ids: [stopId] });
  expect(stopped.choices[0]).toMatchObject({ finish_reason: 'stop', token_ids: ids.slice(0, first) });
  const later = await complete({ max_tokens: 12, stop_token_ids: [stopId], min_tokens: 8 });
  expect(later.choices[0]?.token_ids.length).toBeGreaterThanOrEqual(8);
  expect(later.choices[0]?.token_ids.slice(0, 8)).not.toContain(stopId);
});

test('min_p of 1 leaves the likeliest token alone, whatever the temperature', async () => {
  expect(await idsOf({ temperature: 2, seed: 5, min_p: 1 })).toEqual(await idsOf({}));
});

test('log-probabilities are the greedy token first, in order, and the same streamed as whole', async () => {
  const { choices } = await complete({ max_tokens: 6, logprobs: 20 });
  const logprobs = choices[0]?.logprobs;
  expect(logprobs?.token_logprobs).toHaveLength(6);
  for (const [place, top] of (logprobs?.top_logprobs ?? []).entries()) {
    const values = Object.values(top).sort((a, b) => b - a);
    expect(logprobs?.token_logprobs[place]).toBe(values[0]);
    const sum = values.reduce((total, value) => total + Math.exp(value), 0);
    expect(sum).toBeGreaterThan(0.3);
    expect(sum).toBeLessThanOrEqual(1 + 1e-5);
  }
  expect(logprobs?.tokens.join('')).toBe(choices[0]?.text);
  const sampled = await complete({ max_tokens: 6, logprobs: 0, temperature: 0.1, seed: 1 });
  expect(sampled.choices[0]?.logprobs?.top_logprobs.every((top) => Object.keys(top).length === 0)).toBe(true);

  const messages = [{ role: 'user' as const, content: 'Tell me a story.' }];
  const asked = { model: MODEL, messages, max_tokens: 6, temperature: 0, logprobs: true, top_logprobs: 3 };
  const chat = await client.chat.completions.create(asked);
  const streamed = await client.chat.completions.stream({ ...asked, stream: true }).finalChatCompletion();
  expect(streamed.choices[0]?.logprobs?.content).toEqual(chat.choices[0]?.logprobs?.content);
  for (const { token, logprob, bytes, top_logprobs } of chat.choices[0]?.logprobs?.content ?? []) {
    expect(top_logprobs).toHaveLength(3);
    expect(top_logprobs[0]).toMatchObject({ token, logprob, bytes });
    expect(Buffer.from(bytes ?? []).toString('utf8')).toBe(token);
  }
});

test('echo puts the prompt in front, as text and from token ids, whole and streamed', async () => {
  const plain = (await complete({ max_tokens: 5 })).choices[0]?.text;
  const echoed = await complete({ max_tokens: 5, echo: true });
  expect(echoed.choices[0]?.text).toBe(`Once upon a time${plain}`);
  const ids = await served.post('/tokenize', { model: MODEL, prompt: 'Once upon a time' });
  const { tokens } = (await ids.json()) as { tokens: number[] };
  expect((await complete({ max_tokens: 5, echo: true, prompt: tokens })).choices[0]?.text).toBe(
    echoed.choices[0]?.text,
  );
  const stream = await client.completions.create({
    model: MODEL,
    prompt: 'Once upon a time',
    max_tokens: 5,
    temperature: 0,
    echo: true,
    stream: true,
  });
  let text = '';
  for await (const chunk of stream) text += chunk.choices[0]?.text ?? '';
  expect(text).toBe(echoed.choices[0]?.text);
});
