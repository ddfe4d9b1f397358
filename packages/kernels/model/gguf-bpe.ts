/**
 * The byte-level BPE inside a GGUF file (`tokenizer.ggml.model` "gpt2") as the normalizer, pre-tokenizer, model and decoder
 * of a tokenizer.json. Called by gguf-tokenizer.ts. Refuses pre-tokenizers it does not know, by name: a nearly right one
 * gives nearly right token ids.
 */
import type { GgufMetadata } from './gguf-metadata.ts';
import type { TokenizerParts } from './gguf-tokenizer-parts.ts';
import { ModelError } from './model-error.ts';

const split = (pattern: string, behavior: 'Isolated' | 'Removed' = 'Isolated') => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior,
  invert: false,
});
const byteLevel = (isSplitting: boolean) => ({
  type: 'ByteLevel',
  add_prefix_space: false,
  trim_offsets: true,
  use_regex: isSplitting,
});
const sequence = (...pretokenizers: object[]) => ({ type: 'Sequence', pretokenizers });

const gpt2 = byteLevel(true);
// `Split` by \p{N} and not `Digits`: the JavaScript library's `Digits` knows ASCII digits only, the original all numbers.
const singleDigits = sequence(split('\\p{N}'), byteLevel(true));
const words = (digits: string) =>
  sequence(
    split(
      "(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" +
        `${digits}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+`,
    ),
    byteLevel(false),
  );
/** Mistral's Tekken: words change at a step from lower to upper case. */
const casedWords = (() => {
  const upper = '[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]';
  const lower = '[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]';
  return sequence(
    split(
      `[^\\r\\n\\p{L}\\p{N}]?${upper}*${lower}+|[^\\r\\n\\p{L}\\p{N}]?${upper}+${lower}*|\\p{N}|` +
        ' ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+',
    ),
    byteLevel(false),
  );
})();
/** What llama.cpp does where a file names no pre-tokenizer: punctuation apart, then GPT-2's words, numbers in threes. */
const unnamed = sequence(
  split('[\\p{P}\\$\\+<=>\\^~\\|]+'),
  split("'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)"),
  split('\\p{N}+'),
  split('[0-9][0-9][0-9]'),
  byteLevel(false),
);

interface PreTokenizer {
  readonly json: object;
  /** Whether a pre-token that stands in the vocabulary is taken whole, whatever the merges say. */
  readonly isMergeIgnored: boolean;
  readonly isBosAddedByDefault: boolean;
  readonly normalizer: object | null;
}
const plain = (json: object): PreTokenizer => ({
  json,
  isMergeIgnored: false,
  isBosAddedByDefault: false,
  normalizer: null,
});
const llama3: PreTokenizer = {
  ...plain(words('\\p{N}{1,3}')),
  isMergeIgnored: true,
  isBosAddedByDefault: true,
};
const qwen2: PreTokenizer = { ...plain(words('\\p{N}')), normalizer: { type: 'NFC' } };
/** By `tokenizer.ggml.pre`. */
const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ['default', plain(unnamed)],
  ['gpt-2', plain(gpt2)],
  ['olmo', plain(gpt2)],
  ['phi-2', plain(gpt2)],
  ['smollm', plain(singleDigits)],
  ['starcoder', plain(singleDigits)],
  ['refact', plain(singleDigits)],
  ['llama-bpe', llama3],
  ['llama3', llama3],
  ['llama-v3', llama3],
  ['qwen2', qwen2],
  ['deepseek-r1-qwen', qwen2],
  ['tekken', { ...plain(casedWords), isMergeIgnored: true }],
]);

export function bytePairParts(metadata: GgufMetadata, vocabulary: Record<string, number>): TokenizerParts {
  const preName = metadata.text('tokenizer.ggml.pre') ?? 'default';
  const pre = PRE_TOKENIZERS.get(preName);
  if (pre === undefined) {
    throw new ModelError(
      metadata.file,
      `its pre-tokenizer is "${preName}"; ${[...PRE_TOKENIZERS.keys()].join(', ')} are read.`,
    );
  }
  return {
    normalizer: pre.normalizer,
    preTokenizer: pre.json,
    decoder: { type: 'ByteLevel', add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: false,
      byte_fallback: false,
      ignore_merges: pre.isMergeIgnored,
      vocab: vocabulary,
      merges: merges(metadata),
    },
    isBosAddedByDefault: pre.isBosAddedByDefault,
  };
}

function merges(metadata: GgufMetadata): [string, string][] {
  const lines = metadata.texts('tokenizer.ggml.merges');
  if (lines === null) throw new ModelError(metadata.file, 'tokenizer.ggml.merges is missing.');
  return lines.map((line) => {
    const [left, right, ...rest] = line.split(' ');
    if (!left || !right || rest.length > 0) {
      throw new ModelError(metadata.file, `the merge "${line}" is not a pair of tokens.`);
    }
    return [left, right];
  });
}
