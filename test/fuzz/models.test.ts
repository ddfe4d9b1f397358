import { execFileSync } from 'node:child_process';
import { cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { Tokenizer } from '@huggingface/tokenizers';
import { loadModel } from '@variator/kernels/model';
import { ModelError } from '@variator/kernels/model/model-error';
import { afterAll, describe, expect, test } from 'vitest';
import { root } from '../running-product.ts';
import { loadMutated, mutableFolders } from './load-mutated.ts';
import { mutatedModels } from './mutated-models.ts';

const scratch = mkdtempSync(join(tmpdir(), 'variator-mutants-'));
afterAll(() => rmSync(scratch, { recursive: true, force: true }));
const story = join(root, 'models/stories-5m');

test('the same seed gives the same files, another seed others', () => {
  const folders = mutableFolders(story, join(scratch, 'folders'));
  const first = (seed: number) => {
    const mutants = mutatedModels(folders, seed);
    return Array.from({ length: 20 }, () => Buffer.from(mutants.next().value?.bytes).toString('hex'));
  };
  expect(first(7)).toEqual(first(7));
  expect(first(7)).not.toEqual(first(8));
});

test('what is mutated is read as it is', async () => {
  const folders = mutableFolders(story, join(scratch, 'whole'));
  const architectures = await Promise.all(
    folders.map(async (folder) => (await loadModel(folder)).architecture),
  );
  expect(architectures).toEqual(['llama', 'qwen3_moe', 'deepseek_v3']);
});

test('3,000 mutated model files are read as a model that computes, or refused with a sentence', async () => {
  const before = process.resourceUsage().maxRSS;
  const outcome = await loadMutated({ story, folder: scratch, count: 3000, seed: 20_261_126 });
  expect(outcome.faults).toEqual([]);
  expect(outcome.loadedCount).toBeGreaterThan(300);
  expect(outcome.refusedCount).toBeGreaterThan(1000);
  // Not all for one and the same reason.
  expect(outcome.sentenceCount).toBeGreaterThan(100);
  expect((process.resourceUsage().maxRSS - before) / 1024).toBeLessThan(512);
}, 120_000);

describe('what stands where a file should be', () => {
  const files = ['config.json', 'tokenizer.json', 'tokenizer_config.json', 'model.safetensors'];
  const cases: [string, (path: string) => void, RegExp][] = [
    ['a folder', (path) => mkdirSync(path), /not a regular file/],
    ['a link to nowhere', (path) => symlinkSync('../blobs/gone', path), /link to a file that is not there/],
    ['a link to itself', (path) => symlinkSync(path, path), /cannot be read/],
    ['a pipe', (path) => execFileSync('mkfifo', [path]), /not a regular file/],
    ['an empty file', (path) => writeFileSync(path, ''), /not valid JSON|ends at byte 0/],
    ['deep JSON', (path) => writeFileSync(path, '{"a":'.repeat(1e5)), /valid JSON|header|limit/],
    [
      'deep and valid JSON',
      (path) => writeFileSync(path, `{"a":${'['.repeat(1e5)}${']'.repeat(1e5)}}`),
      /nested more than 64 deep|header|limit/,
    ],
  ];
  test.each(cases)('%s is refused by its name', async (name, put, sentence) => {
    for (const file of [...files, 'generation_config.json', 'chat_template.jinja']) {
      // A template may be empty, and says what it likes.
      if (file.endsWith('.jinja') && /JSON|empty/.test(name)) continue;
      const folder = join(scratch, `${name} for ${file}`);
      cpSync(story, folder, { recursive: true });
      rmSync(join(folder, file), { force: true });
      put(join(folder, file));
      const fault = await loadModel(folder).catch((error: unknown) => error);
      expect(fault).toBeInstanceOf(ModelError);
      expect((fault as ModelError).file).toBe(join(folder, file));
      expect(String(fault)).toMatch(sentence);
    }
  });
});

describe('a tokenizer.json that lies', () => {
  type Json = {
    model: { vocab: Record<string, unknown>; merges: unknown[]; type: string };
    normalizer: unknown;
    added_tokens: { id: number; content: string }[];
  };
  const zebra = (id: number) => (json: Json) => {
    json.model.vocab.zebra = id;
  };
  const cases: [string, (json: Json) => void, RegExp][] = [
    ['an id beyond the model', zebra(2048), /"zebra" has the id 2048.*2047/],
    ['an id twice', zebra(7), /and "zebra" are both token 7/],
    ['an id that is none', zebra(7.5), /"zebra" has no id/],
    ['a huge id', zebra(2 ** 40), /has the id 1099511627776/],
    ['an absent half', ({ model }) => void model.merges.push(['a', 'zebra']), /needs the token "zebra"/],
    ['an absent whole', ({ model }) => void model.merges.push(['zz', 'qq']), /needs the token/],
    ['a merge of three', ({ model }) => void model.merges.push('a b c'), /not a pair of tokens/],
    ['an empty added token', (json) => void json.added_tokens.push({ id: 3, content: '' }), /added_tokens/],
    ['another kind', ({ model }) => void Object.assign(model, { type: 'Unigram' }), /of kind "Unigram"/],
    [
      'a normalizer that multiplies',
      (json) => {
        const step = { type: 'Replace', pattern: { Regex: '.' }, content: 'x'.repeat(30) };
        json.normalizer = { type: 'Sequence', normalizers: [step, step] };
      },
      /"normalizer" makes a text more than 64 times as long/,
    ],
  ];
  test('an added token that the model has no row for is text like any other', async () => {
    const folder = join(scratch, 'tokenizer with padding');
    cpSync(story, folder, { recursive: true });
    const file = join(folder, 'tokenizer.json');
    const json = JSON.parse(readFileSync(file, 'utf8')) as Json;
    json.added_tokens.push({ id: 2048, content: '[PAD]' });
    writeFileSync(file, JSON.stringify(json));
    const { tokenizerJson, tokenizerConfig } = (await loadModel(folder)).tokenizer;
    const { ids } = new Tokenizer(tokenizerJson, tokenizerConfig).encode('[PAD]');
    expect(Math.max(...ids)).toBeLessThan(2048);
  });
  test.each(cases)('%s', async (name, edit, sentence) => {
    const folder = join(scratch, `tokenizer ${name}`);
    cpSync(story, folder, { recursive: true });
    const file = join(folder, 'tokenizer.json');
    const json = JSON.parse(readFileSync(file, 'utf8')) as Json;
    edit(json);
    writeFileSync(file, JSON.stringify(json));
    const fault = await loadModel(folder).catch((error: unknown) => error);
    expect(fault).toBeInstanceOf(ModelError);
    expect(String(fault)).toMatch(sentence);
  });
});
