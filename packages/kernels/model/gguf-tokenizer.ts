/**
 * The byte-level BPE tokenizer inside a GGUF file -> the tokenizer.json and tokenizer_config.json it was made from, as
 * `@huggingface/tokenizers` takes them. Called by gguf-model.ts. Refuses SentencePiece and other kinds, and
 * pre-tokenizers it does not know, by name: a nearly right one gives nearly right token ids.
 */
import type { GgufMetadata } from './gguf-metadata.ts';
import type { LoadedTokenizer } from './loaded-model.ts';
import { ModelError } from './model-error.ts';

const KIND_NAMES: Readonly<Record<string, string>> = {
  llama: 'SentencePiece',
  bert: 'WordPiece',
  t5: 'Unigram',
  rwkv: 'RWKV',
};

const split = (pattern: string) => ({
  type: 'Split',
  pattern: { Regex: pattern },
  behavior: 'Isolated',
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
  json: words('\\p{N}{1,3}'),
  isMergeIgnored: true,
  isBosAddedByDefault: true,
  normalizer: null,
};
/** By `tokenizer.ggml.pre`. */
const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ['default', plain(gpt2)],
  ['gpt-2', plain(gpt2)],
  ['olmo', plain(gpt2)],
  ['phi-2', plain(gpt2)],
  ['smollm', plain(singleDigits)],
  ['starcoder', plain(singleDigits)],
  ['refact', plain(singleDigits)],
  ['llama-bpe', llama3],
  ['llama3', llama3],
  ['llama-v3', llama3],
  ['qwen2', { ...plain(words('\\p{N}')), normalizer: { type: 'NFC' } }],
]);

/** `tokenizer.ggml.token_type` */
const UNKNOWN = 2;
const CONTROL = 3;
const USER_DEFINED = 4;

export function readGgufTokenizer(metadata: GgufMetadata): LoadedTokenizer {
  const { file } = metadata;
  const kind = metadata.text('tokenizer.ggml.model');
  if (kind !== 'gpt2') {
    const name = KIND_NAMES[kind ?? ''];
    throw new ModelError(
      file,
      `its tokenizer is of kind "${kind}"${name === undefined ? '' : ` (${name})`}; byte-level BPE ("gpt2") is read.`,
    );
  }
  const tokens = metadata.texts('tokenizer.ggml.tokens') ?? [];
  if (tokens.length === 0) throw new ModelError(file, 'tokenizer.ggml.tokens is missing.');
  const preName = metadata.text('tokenizer.ggml.pre') ?? 'default';
  const pre = PRE_TOKENIZERS.get(preName);
  if (pre === undefined) {
    throw new ModelError(
      file,
      `its pre-tokenizer is "${preName}"; ${[...PRE_TOKENIZERS.keys()].join(', ')} are read.`,
    );
  }

  const idIfThere = (key: string): number | null =>
    metadata.count(`tokenizer.ggml.${key}`, tokens.length - 1);
  const textOf = (id: number | null): string | null => (id === null ? null : (tokens[id] ?? null));
  const bosTokenId = idIfThere('bos_token_id');
  const eosTokenId = idIfThere('eos_token_id');
  const isBosAdded = metadata.isTrue('tokenizer.ggml.add_bos_token') ?? pre.isBosAddedByDefault;
  const isEosAdded = metadata.isTrue('tokenizer.ggml.add_eos_token') ?? false;
  const chatTemplate = metadata.text('tokenizer.chat_template');
  const ends = [eosTokenId, idIfThere('eot_token_id'), idIfThere('eom_token_id')];

  return {
    tokenizerJson: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: addedTokens(metadata, tokens),
      normalizer: pre.normalizer,
      pre_tokenizer: pre.json,
      post_processor: postProcessor(
        isBosAdded ? textOf(bosTokenId) : null,
        bosTokenId,
        isEosAdded ? textOf(eosTokenId) : null,
        eosTokenId,
      ),
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
        vocab: vocabulary(file, tokens),
        merges: merges(metadata),
      },
    },
    tokenizerConfig: {
      tokenizer_class: 'PreTrainedTokenizerFast',
      bos_token: textOf(bosTokenId),
      eos_token: textOf(eosTokenId),
      unk_token: textOf(idIfThere('unknown_token_id')),
      pad_token: textOf(idIfThere('padding_token_id')),
      add_bos_token: isBosAdded,
      add_eos_token: isEosAdded,
      clean_up_tokenization_spaces: false,
      chat_template: chatTemplate,
    },
    chatTemplate,
    bosTokenId,
    eosTokenIds: [...new Set(ends.filter((id) => id !== null))].sort((a, b) => a - b),
  };
}

function vocabulary(file: string, tokens: readonly string[]): Record<string, number> {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  if (ids.size !== tokens.length) {
    const twice = tokens.find((token, id) => ids.get(token) !== id);
    throw new ModelError(file, `the token "${twice}" stands twice in its vocabulary.`);
  }
  return Object.fromEntries(ids);
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

function addedTokens(metadata: GgufMetadata, tokens: readonly string[]): object[] {
  const types = metadata.numbers('tokenizer.ggml.token_type') ?? [];
  if (types.length !== 0 && types.length !== tokens.length) {
    throw new ModelError(metadata.file, `it holds ${tokens.length} tokens and ${types.length} token types.`);
  }
  return tokens.flatMap((content, id) => {
    const type = types[id];
    if (type !== CONTROL && type !== USER_DEFINED && type !== UNKNOWN) return [];
    const isSpecial = type !== USER_DEFINED;
    return [
      {
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: isSpecial,
      },
    ];
  });
}

/** Puts the beginning and end tokens around a text where the model wants them; for raw prompts, never for templates. */
function postProcessor(
  bos: string | null,
  bosId: number | null,
  eos: string | null,
  eosId: number | null,
): object | null {
  if (bos === null && eos === null) return null;
  const token = (id: string | null) => (id === null ? [] : [{ SpecialToken: { id, type_id: 0 } }]);
  const text = (id: string) => ({ Sequence: { id, type_id: 0 } });
  const entry = (id: string | null, number: number | null) =>
    id === null ? [] : [[id, { id, ids: [number], tokens: [id] }] as const];
  return {
    type: 'TemplateProcessing',
    single: [...token(bos), text('A'), ...token(eos)],
    pair: [...token(bos), text('A'), ...token(eos), ...token(bos), text('B'), ...token(eos)],
    special_tokens: Object.fromEntries([...entry(bos, bosId), ...entry(eos, eosId)]),
  };
}
