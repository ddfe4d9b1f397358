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

test('a tokenizer of another kind is refused', () => {
  const other = storyTokenizer({
    tokenizerJson: { ...loaded.tokenizerJson, decoder: { type: 'Metaspace' } },
  });
  expect(() => new Vocabulary(other)).toThrow('tokenizer.json: its decoder is neither');
});

/** A SentencePiece vocabulary with byte fallback, as Llama 2's tokenizer.json has it. */
const pieces = [
  '<unk>',
  '<s>',
  '</s>',
  ...Array.from({ length: 256 }, (_, byte) => `<0x${byte.toString(16).toUpperCase().padStart(2, '0')}>`),
  '▁',
  '▁Once',
  '▁upon',
  'a',
  '大',
  '▁▁',
];
const sentencePiece = storyTokenizer({
  tokenizerJson: {
    ...loaded.tokenizerJson,
    added_tokens: [0, 1, 2].map((id) => ({ id, content: pieces[id] ?? '', special: true })),
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: '▁' }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        { type: 'Strip', content: ' ', start: 1, stop: 0 },
      ],
    },
    model: { type: 'BPE', vocab: Object.fromEntries(pieces.map((piece, id) => [piece, id])), merges: [] },
  },
});

test('SentencePiece: spaces, whole characters and characters in bytes come back exactly, however they are cut', () => {
  const vocabularyOfPieces = new Vocabulary(sentencePiece);
  const idOf = (piece: string): number => pieces.indexOf(piece);
  const bytes = [...new TextEncoder().encode('👩 é')].map((byte) => 3 + byte);
  const ids = [1, idOf('▁Once'), idOf('▁upon'), idOf('▁▁'), idOf('大'), ...bytes, idOf('a'), 2];
  const detokenizer = new Detokenizer(vocabularyOfPieces);
  const parts = ids.map((id) => detokenizer.push(id));
  expect(parts.join('') + detokenizer.end()).toBe(' Once upon  大👩 éa');
  // No half of a character is ever shown.
  expect(parts.join('')).not.toContain('\uFFFD');
  const cut = new Detokenizer(vocabularyOfPieces);
  expect(cut.push(3 + 0xf0) + cut.push(3 + 0x9f) + cut.end()).toBe('\uFFFD');
  expect(vocabularyOfPieces.longestTokenBytes).toBeGreaterThanOrEqual(6);
});
