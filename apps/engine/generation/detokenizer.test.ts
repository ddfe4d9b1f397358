import { Tokenizer } from '@huggingface/tokenizers';
import { expect, test } from 'vitest';
import { Detokenizer, Vocabulary } from './detokenizer.ts';
import { storyTokenizer } from './story-tokenizer.fixture.ts';

const loaded = storyTokenizer();
const tokenizer = new Tokenizer(loaded.tokenizerJson, loaded.tokenizerConfig);
const vocabulary = new Vocabulary(loaded);
const mixed =
  'Once upon a time, 大型语言模型 こんにちは Привет мир 👩‍👩‍👧‍👦 \uFEFF naïve café\n\n\t "quotes" 🏴󠁧󠁢󠁥󠁮󠁧󠁿 \u0000 end';

function decode(ids: readonly number[]): string {
  const detokenizer = new Detokenizer(vocabulary);
  return ids.map((id) => detokenizer.push(id)).join('') + detokenizer.end();
}

test('multi-byte text comes back exactly, token by token', () => {
  expect(decode(tokenizer.encode(mixed).ids)).toBe(mixed);
});

test('a stream cut after any token equals the decoding of that beginning as a whole', () => {
  const { ids } = tokenizer.encode(mixed);
  for (let length = 1; length <= ids.length; length += 1) {
    const start = ids.slice(0, length);
    expect(decode(start)).toBe(tokenizer.decode(start));
  }
});

test('any ids decode as the tokenizer decodes them, also where bytes are not UTF-8', () => {
  let state = 7;
  const ids = Array.from({ length: 3000 }, () => {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    return (state >>> 8) % 2048;
  });
  expect(decode(ids)).toBe(tokenizer.decode(ids, { skip_special_tokens: true }));
});

test('text that was shown is never taken back', () => {
  const detokenizer = new Detokenizer(vocabulary);
  let shown = '';
  for (const id of tokenizer.encode(mixed).ids) {
    shown += detokenizer.push(id);
    expect(mixed.startsWith(shown)).toBe(true);
  }
});

test('special tokens and ids outside the vocabulary are no text', () => {
  expect(decode([1, 521, 2, 999_999])).toBe(tokenizer.decode([521]));
});

test('a tokenizer that is not byte-level is refused', () => {
  const other = storyTokenizer({
    tokenizerJson: { ...loaded.tokenizerJson, decoder: { type: 'Metaspace' } },
  });
  expect(() => new Vocabulary(other)).toThrow('byte-level');
});
