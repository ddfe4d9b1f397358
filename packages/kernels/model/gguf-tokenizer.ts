/**
 * The tokenizer inside a GGUF file -> the tokenizer.json and tokenizer_config.json it was made from, as
 * `@huggingface/tokenizers` takes them. Called by gguf-model.ts. Byte-level BPE (gguf-bpe.ts) and SentencePiece BPE
 * (gguf-sentencepiece.ts); refuses other kinds by name.
 */
import { bytePairParts } from './gguf-bpe.ts';
import type { GgufMetadata } from './gguf-metadata.ts';
import { sentencePieceParts } from './gguf-sentencepiece.ts';
import { TOKEN_TYPE, type TokenizerParts } from './gguf-tokenizer-parts.ts';
import type { LoadedTokenizer } from './loaded-model.ts';
import { ModelError } from './model-error.ts';

const KIND_NAMES: Readonly<Record<string, string>> = {
  bert: 'WordPiece',
  t5: 'Unigram',
  rwkv: 'RWKV',
  plamo2: 'PLaMo-2',
};
/** Control tokens that end an answer whatever the file's own end token is: GGUF files have room for no list of them. */
const END_TEXTS = new Set([
  '<|eot_id|>',
  '<|im_end|>',
  '<|end|>',
  '<|endoftext|>',
  '<|end_of_text|>',
  '<|eom_id|>',
  '<end_of_turn>',
  '<|end_of_turn|>',
  '<EOT>',
  '_<EOT>',
]);

export function readGgufTokenizer(metadata: GgufMetadata): LoadedTokenizer {
  const { file } = metadata;
  const tokens = metadata.texts('tokenizer.ggml.tokens') ?? [];
  if (tokens.length === 0) throw new ModelError(file, 'tokenizer.ggml.tokens is missing.');
  const types = metadata.numbers('tokenizer.ggml.token_type') ?? [];
  if (types.length !== 0 && types.length !== tokens.length) {
    throw new ModelError(file, `it holds ${tokens.length} tokens and ${types.length} token types.`);
  }
  const parts = readParts(metadata, tokens, types);

  const idIfThere = (key: string): number | null =>
    metadata.tokenId(`tokenizer.ggml.${key}`, tokens.length - 1);
  const textOf = (id: number | null): string | null => (id === null ? null : (tokens[id] ?? null));
  const bosTokenId = idIfThere('bos_token_id');
  const eosTokenId = idIfThere('eos_token_id');
  const isBosAdded = metadata.isTrue('tokenizer.ggml.add_bos_token') ?? parts.isBosAddedByDefault;
  const isEosAdded = metadata.isTrue('tokenizer.ggml.add_eos_token') ?? false;
  const chatTemplate = metadata.text('tokenizer.chat_template');
  const named = [eosTokenId, idIfThere('eot_token_id'), idIfThere('eom_token_id')];
  const known = types.flatMap((type, id) =>
    type === TOKEN_TYPE.control && END_TEXTS.has(tokens[id] ?? '') ? [id] : [],
  );

  return {
    file,
    tokenizerJson: {
      version: '1.0',
      truncation: null,
      padding: null,
      added_tokens: addedTokens(tokens, types),
      normalizer: parts.normalizer,
      pre_tokenizer: parts.preTokenizer,
      post_processor: postProcessor(
        isBosAdded ? textOf(bosTokenId) : null,
        bosTokenId,
        isEosAdded ? textOf(eosTokenId) : null,
        eosTokenId,
      ),
      decoder: parts.decoder,
      model: parts.model,
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
    eosTokenIds: [...new Set([...named.filter((id) => id !== null), ...known])].sort((a, b) => a - b),
  };
}

function readParts(
  metadata: GgufMetadata,
  tokens: readonly string[],
  types: readonly number[],
): TokenizerParts {
  const kind = metadata.text('tokenizer.ggml.model');
  if (kind === 'gpt2') return bytePairParts(metadata, vocabulary(metadata.file, tokens));
  if (kind === 'llama') {
    return sentencePieceParts(metadata, vocabulary(metadata.file, tokens), tokens, types);
  }
  const name = KIND_NAMES[kind ?? ''];
  throw new ModelError(
    metadata.file,
    `its tokenizer is of kind "${kind}"${name === undefined ? '' : ` (${name})`}; byte-level BPE ("gpt2") and SentencePiece ("llama") are read.`,
  );
}

function vocabulary(file: string, tokens: readonly string[]): Record<string, number> {
  const ids = new Map(tokens.map((token, id) => [token, id]));
  if (ids.size !== tokens.length) {
    const twice = tokens.find((token, id) => ids.get(token) !== id);
    throw new ModelError(file, `the token "${twice}" stands twice in its vocabulary.`);
  }
  return Object.fromEntries(ids);
}

function addedTokens(tokens: readonly string[], types: readonly number[]): object[] {
  return tokens.flatMap((content, id) => {
    const type = types[id];
    const isSpecial = type === TOKEN_TYPE.control || type === TOKEN_TYPE.unknown;
    if (!isSpecial && type !== TOKEN_TYPE.userDefined) return [];
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
