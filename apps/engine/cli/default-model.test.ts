import { existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { homedir, tmpdir } from 'node:os';
import { join, resolve } from 'node:path';
import { Template } from '@huggingface/jinja';
import { Tokenizer } from '@huggingface/tokenizers';
import { loadModel } from '@variator/kernels/model';
import { afterAll, describe, expect, test } from 'vitest';
import { defaultCacheDir, findCachedDefaultModel, resolveDefaultModel } from './default-model.ts';

const repository = resolve(import.meta.dirname, '../../..');
const golden = resolve(repository, '../shared/golden');
const scratch = mkdtempSync(join(tmpdir(), 'variator-default-'));
afterAll(() => rmSync(scratch, { recursive: true }));

interface GoldenCase {
  readonly content: string;
  readonly prompt: number[];
  readonly greedy: number[];
  readonly text: string;
}

/** Encodes every golden message as a chat and compares ids; decodes every golden answer and compares text. */
async function compareWithGolden(modelPath: string, goldenFile: string): Promise<number> {
  const { tokenizer } = await loadModel(modelPath);
  const { cases } = JSON.parse(readFileSync(goldenFile, 'utf8')) as { cases: GoldenCase[] };
  const library = new Tokenizer(tokenizer.tokenizerJson, tokenizer.tokenizerConfig);
  const template = new Template(tokenizer.chatTemplate ?? '');
  for (const { content, prompt, greedy, text } of cases) {
    const rendered = template.render({
      messages: [{ role: 'user', content }],
      add_generation_prompt: true,
      bos_token: tokenizer.tokenizerConfig.bos_token,
      eos_token: tokenizer.tokenizerConfig.eos_token,
    });
    expect(library.encode(rendered, { add_special_tokens: false }).ids, content).toEqual(prompt);
    expect(library.decode(greedy, { skip_special_tokens: false }), content).toBe(text);
  }
  return cases.length;
}

const isStoryGoldenThere = existsSync(join(golden, 'stories-5m', 'golden.json'));
if (!isStoryGoldenThere) console.warn('SKIPPED: golden prompts of stories-5m (../shared/golden is not here)');
test.skipIf(!isStoryGoldenThere)('the story model makes the golden ids of every prompt', async () => {
  const count = await compareWithGolden(
    join(repository, 'models', 'stories-5m'),
    join(golden, 'stories-5m', 'golden.json'),
  );
  expect(count).toBe(5);
});

const cached = findCachedDefaultModel(defaultCacheDir(homedir(), null));
const canCompare = cached !== null && existsSync(join(golden, 'smollm2', 'golden.json'));
if (!canCompare)
  console.warn('SKIPPED: SmolLM2 tests (the model is not in the cache, or ../shared is not here)');
describe.skipIf(!canCompare)('SmolLM2 from the cache', () => {
  const path = cached ?? '';

  test('makes the golden ids of every prompt, with digits, spaces and emoji', async () => {
    expect(await compareWithGolden(path, join(golden, 'smollm2', 'golden.json'))).toBe(10);
  });

  test('splits all numbers one by one, those beyond ASCII too', async () => {
    const { tokenizer } = await loadModel(path);
    const library = new Tokenizer(tokenizer.tokenizerJson, tokenizer.tokenizerConfig);
    const text = ' 12٣٤ ½½ x9y';
    const single = [' ', '1', '2', '٣', '٤', ' ', '½', '½', ' x', '9', 'y'].flatMap(
      (piece) => library.encode(piece, { add_special_tokens: false }).ids,
    );
    expect(library.encode(text, { add_special_tokens: false }).ids).toEqual(single);
    expect(library.decode(single)).toBe(text);
  });

  test('is the answer at once, without a download', async () => {
    const progress: unknown[] = [];
    const answer = await resolveDefaultModel({
      cacheDir: defaultCacheDir(homedir(), null),
      repositoryDir: repository,
      onProgress: (event) => progress.push(event),
    });
    expect(answer).toEqual({ path, line: 'Model: SmolLM2-135M-Instruct Q4_1 (cached)' });
    expect(progress).toEqual([]);
  });
});

test('without cache and time the story model is served, and the line says why', async () => {
  const answer = await resolveDefaultModel({
    cacheDir: join(scratch, 'cache'),
    repositoryDir: repository,
    onProgress: () => {},
    signal: AbortSignal.abort(new Error('stopped by the test')),
  });
  expect(answer).toEqual({
    path: join(repository, 'models', 'stories-5m'),
    line: 'Model: stories-5m (the SmolLM2 download failed: stopped by the test)',
  });
  expect((await loadModel(answer.path)).modelId).toBe('stories-5m');
});

test('the cache lies in XDG_CACHE_HOME where that is an absolute path', () => {
  expect(defaultCacheDir('/home/ada', '/var/cache/ada')).toBe('/var/cache/ada/variator/models');
  expect(defaultCacheDir('/home/ada', null)).toBe('/home/ada/.cache/variator/models');
  expect(defaultCacheDir('/home/ada', 'cache')).toBe('/home/ada/.cache/variator/models');
});
