/** Clients that take nothing for granted, unchanged: the AI SDK's OpenAI-compatible provider and LangChain. */
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { Tokenizer } from '@huggingface/tokenizers';
import { HumanMessage } from '@langchain/core/messages';
import { ChatOpenAI } from '@langchain/openai';
import { generateText, streamText } from 'ai';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { storyTokenizer } from '../generation/story-tokenizer.fixture.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

const loaded = storyTokenizer();
const story = 'Once upon a time, 大型 there was a cat.';
const storyIds = [...new Tokenizer(loaded.tokenizerJson, loaded.tokenizerConfig).encode(story).ids, 2];

let served: Served;
beforeAll(async () => {
  served = await serve((spec) => ({
    tokenIds: storyIds,
    ...(spec.program === 'fails' ? { failAt: 3 } : {}),
  }));
});
afterAll(() => served.close());

const sdk = (headers: Record<string, string> = {}) =>
  createOpenAICompatible({
    name: 'variator',
    baseURL: `${served.url}/v1`,
    apiKey: 'any',
    includeUsage: true,
    headers,
  }).chatModel(MODEL);
const prompt = 'Tell me a story.';

test('the AI SDK generates: text, reason, usage', async () => {
  const { text, finishReason, usage } = await generateText({ model: sdk(), prompt, maxRetries: 0 });
  expect(text).toBe(story);
  expect(finishReason).toBe('stop');
  expect(usage).toMatchObject({ inputTokens: 16, outputTokens: storyIds.length });
});

test('the AI SDK streams: every delta, the reason, the usage at the end', async () => {
  const { textStream, finishReason, usage } = streamText({ model: sdk(), prompt, maxRetries: 0 });
  let text = '';
  for await (const delta of textStream) text += delta;
  expect(text).toBe(story);
  expect(await finishReason).toBe('stop');
  expect(await usage).toMatchObject({ inputTokens: 16, outputTokens: storyIds.length });
});

test('the AI SDK hears of a failure in the middle of a stream', async () => {
  const faults: unknown[] = [];
  const { textStream } = streamText({
    model: sdk({ 'x-session-id': 'fails', 'x-program-id': 'fails' }),
    prompt,
    maxRetries: 0,
    onError: ({ error }) => {
      faults.push(error);
    },
  });
  let text = '';
  for await (const delta of textStream) text += delta;
  expect(story.startsWith(text)).toBe(true);
  expect(faults).toHaveLength(1);
});

const langchain = (more: object = {}) =>
  new ChatOpenAI({
    model: MODEL,
    apiKey: 'any',
    maxRetries: 0,
    configuration: { baseURL: `${served.url}/v1` },
    ...more,
  });

test('LangChain invokes: content and usage', async () => {
  const answer = await langchain().invoke([new HumanMessage(prompt)]);
  expect(answer.content).toBe(story);
  expect(answer.usage_metadata).toMatchObject({ input_tokens: 16, output_tokens: storyIds.length });
});

test('LangChain streams: deltas and usage', async () => {
  let text = '';
  const usages: unknown[] = [];
  for await (const chunk of await langchain({ streamUsage: true }).stream([new HumanMessage(prompt)])) {
    text += chunk.content;
    if (chunk.usage_metadata !== undefined) usages.push(chunk.usage_metadata);
  }
  expect(text).toBe(story);
  expect(usages.at(-1)).toMatchObject({ output_tokens: storyIds.length });
});
