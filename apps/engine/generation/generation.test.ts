import { afterAll, expect, test } from 'vitest';
import type { AskedSettings } from './accept-request.ts';
import { createGeneration, type Generation, type GenerationOptions } from './generation.ts';
import type { RequestError } from './request-error.ts';
import { STORY_VOCABULARY_SIZE, storyDefaults, storyTokenizer } from './story-tokenizer.fixture.ts';

const opened: Generation[] = [];
function open(changes: Partial<GenerationOptions> = {}): Generation {
  const generation = createGeneration({
    tokenizer: storyTokenizer(),
    generationDefaults: storyDefaults,
    modelId: 'stories-5m',
    maxModelLenTokens: 256,
    vocabularySize: STORY_VOCABULARY_SIZE,
    threadCount: 1,
    ...changes,
  });
  opened.push(generation);
  return generation;
}
afterAll(async () => {
  for (const generation of opened) await generation.close();
});

const asked: AskedSettings = {
  temperature: null,
  topP: null,
  topK: null,
  seed: null,
  maxTokens: null,
  stop: [],
  ignoreEos: false,
  stopTokenIds: [],
  minTokens: 0,
  minP: 0,
  presencePenalty: 0,
  frequencyPenalty: 0,
  repetitionPenalty: null,
  logitBias: [],
  logprobCount: null,
};
const chat = (content: string, changes: Partial<AskedSettings> = {}) => ({
  ...asked,
  ...changes,
  messages: [{ role: 'user' as const, content }],
});
const refusal = async (refused: Promise<unknown>): Promise<RequestError> =>
  refused.then(
    () => {
      throw new Error('was accepted');
    },
    (error: RequestError) => error,
  );

const generation = open();

test('defaults come from the model, then from OpenAI; a seed is drawn', async () => {
  const accepted = await generation.acceptChat(chat('Tell me a story.'));
  expect(accepted.sampling).toMatchObject({ temperature: 0.7, topP: 1, topK: 40 });
  expect(Number.isSafeInteger(accepted.sampling.seed)).toBe(true);
  expect(accepted.maxTokens).toBe(256 - accepted.promptTokenIds.length);
  expect(accepted.stopTokenIds).toEqual([2, 0]);
  const again = await generation.acceptChat(chat('Tell me a story.'));
  expect(again.sampling.seed).not.toBe(accepted.sampling.seed);
});

test('what the client asks wins', async () => {
  const accepted = await generation.acceptChat(
    chat('Hi', { temperature: 0, topP: 0.5, topK: -1, seed: -1, maxTokens: 5, ignoreEos: true, stop: ['x'] }),
  );
  expect(accepted).toMatchObject({
    sampling: { temperature: 0, topP: 0.5, topK: 0, seed: Number.MAX_SAFE_INTEGER },
    maxTokens: 5,
    stopTokenIds: [],
    stop: ['x'],
  });
});

test('a top_p that the device would read as 0 is the smallest that it can read', async () => {
  for (const topP of [Number.MIN_VALUE, 1e-46, 1e-300]) {
    const { sampling } = await generation.acceptChat(chat('Hi', { topP }));
    expect(Math.fround(sampling.topP)).toBeGreaterThan(0);
  }
});

test('a prompt that leaves no room is refused with its length, before or after it was tokenised', async () => {
  const after = await refusal(generation.acceptChat(chat('word '.repeat(300))));
  expect(after).toMatchObject({ status: 400, code: 'context_length_exceeded', param: 'messages' });
  const before = await refusal(generation.acceptChat(chat('word '.repeat(100_000))));
  expect(before).toMatchObject({ status: 400, code: 'context_length_exceeded' });
  expect(before.message).toContain('at least');
});

test('token ids are taken as they are, if the model has them', async () => {
  const completion = { ...asked, param: 'prompt' };
  const accepted = await generation.acceptCompletion({ ...completion, prompt: [5, 6, 7] });
  expect(accepted).toMatchObject({ promptTokenIds: [5, 6, 7], maxTokens: 16 });
  for (const strange of [-1, STORY_VOCABULARY_SIZE, 1.5]) {
    const error = await refusal(generation.acceptCompletion({ ...completion, prompt: [5, strange] }));
    expect(error).toMatchObject({ status: 400, code: 'invalid_token_id', param: 'prompt' });
  }
  expect(await refusal(generation.acceptCompletion({ ...completion, prompt: '' }))).toMatchObject({
    code: 'empty_prompt',
  });
});

test('a raw text is encoded as a completion prompt is', async () => {
  const accepted = await generation.acceptCompletion({ ...asked, param: 'prompt', prompt: 'Once upon' });
  expect(await generation.encode('Once upon')).toEqual(accepted.promptTokenIds);
});

test('a model without a template refuses chats, not completions', async () => {
  const bare = open({ tokenizer: storyTokenizer({ chatTemplate: null }) });
  expect(await refusal(bare.acceptChat(chat('x')))).toMatchObject({ code: 'chat_template_missing' });
  expect((await bare.acceptCompletion({ ...asked, param: 'prompt', prompt: 'x' })).maxTokens).toBe(16);
});

test('a template that never ends is ended, and the next prompt is served by a new thread', async () => {
  const slow =
    "{% if messages[0]['content'] == 'slow' %}{% for i in range(9999) %}{% for j in range(9999) %}{% endfor %}{% endfor %}{% endif %}{{ messages[0]['content'] }}";
  const limited = open({ tokenizer: storyTokenizer({ chatTemplate: slow }), templateTimeLimitMs: 1000 });
  await limited.ready();
  const [first, second] = await Promise.all([
    refusal(limited.acceptChat(chat('slow'))),
    limited.acceptChat(chat('quick')),
  ]);
  expect(first).toMatchObject({ status: 400, code: 'prompt_too_complex' });
  expect(second.promptTokenIds.length).toBeGreaterThan(0);
});

test('a tokenizer that cannot be loaded is an error, not a wait', async () => {
  const tokenizer = storyTokenizer();
  const broken = open({
    tokenizer: {
      ...tokenizer,
      tokenizerJson: { ...tokenizer.tokenizerJson, pre_tokenizer: { type: 'Nonsense' } },
    },
  });
  await expect(broken.ready()).rejects.toThrow('cannot be loaded');
  await expect(broken.acceptChat(chat('x'))).rejects.toThrow('cannot be loaded');
});

test('the text of an answer ends before its stop string and never shows the token that ended it', async () => {
  const accepted = await generation.acceptCompletion({
    ...asked,
    param: 'prompt',
    prompt: 'Once upon a time',
    stop: ['upon'],
  });
  const answer = generation.answerText(accepted);
  let text = '';
  let isStopped = false;
  for (const id of accepted.promptTokenIds) {
    if (isStopped) break;
    const step = answer.push(id);
    text += step.text;
    isStopped = step.isStopped;
  }
  expect({ text: text + answer.end(), isStopped }).toEqual({ text: 'Once ', isStopped: true });
});
