/**
 * The SentencePiece BPE inside a GGUF file (`tokenizer.ggml.model` "llama") as the normalizer, model and decoder of a
 * tokenizer.json. Called by gguf-tokenizer.ts. SentencePiece joins the two neighbours whose whole has the best score, the
 * leftmost of equals; a list of merges ordered by the score of what they yield says the same.
 */
import type { GgufMetadata } from './gguf-metadata.ts';
import { TOKEN_TYPE, type TokenizerParts } from './gguf-tokenizer-parts.ts';
import { ModelError } from './model-error.ts';

/** U+2581 stands for a space. */
const SPACE = '▁';
/** Splits to try over all tokens: a real vocabulary needs about eight for each token. */
const MAX_SPLIT_COUNT = 1 << 24;

export function sentencePieceParts(
  metadata: GgufMetadata,
  vocabulary: Record<string, number>,
  tokens: readonly string[],
  types: readonly number[],
): TokenizerParts {
  const scores = metadata.numbers('tokenizer.ggml.scores');
  if (scores === null) throw new ModelError(metadata.file, 'tokenizer.ggml.scores is missing.');
  if (scores.length !== tokens.length) {
    throw new ModelError(metadata.file, `it holds ${tokens.length} tokens and ${scores.length} scores.`);
  }
  if (!scores.every(Number.isFinite)) {
    throw new ModelError(metadata.file, 'tokenizer.ggml.scores holds a number that is none.');
  }
  const isPrefixed = metadata.isTrue('tokenizer.ggml.add_space_prefix') ?? true;
  const unknownTokenId = metadata.tokenId('tokenizer.ggml.unknown_token_id', tokens.length - 1);
  const unknown = unknownTokenId ?? types.indexOf(TOKEN_TYPE.unknown);
  return {
    normalizer: {
      type: 'Sequence',
      normalizers: [
        ...(isPrefixed ? [{ type: 'Prepend', prepend: SPACE }] : []),
        { type: 'Replace', pattern: { String: ' ' }, content: SPACE },
      ],
    },
    preTokenizer: null,
    decoder: {
      type: 'Sequence',
      decoders: [
        { type: 'Replace', pattern: { String: SPACE }, content: ' ' },
        { type: 'ByteFallback' },
        { type: 'Fuse' },
        ...(isPrefixed ? [{ type: 'Strip', content: ' ', start: 1, stop: 0 }] : []),
      ],
    },
    model: {
      type: 'BPE',
      dropout: null,
      unk_token: tokens[unknown] ?? null,
      continuing_subword_prefix: null,
      end_of_word_suffix: null,
      fuse_unk: true,
      byte_fallback: true,
      ignore_merges: false,
      vocab: vocabulary,
      merges: merges(metadata.file, tokens, types, scores),
    },
    isBosAddedByDefault: true,
  };
}

/** Every way to make a token out of two others, best score first. Control tokens and bytes are never made from text. */
function merges(
  file: string,
  tokens: readonly string[],
  types: readonly number[],
  scores: readonly number[],
): [string, string][] {
  const isText = (id: number) => {
    const type = types[id] ?? TOKEN_TYPE.normal;
    return type !== TOKEN_TYPE.control && type !== TOKEN_TYPE.unknown && type !== TOKEN_TYPE.byte;
  };
  const texts = new Set(tokens.filter((_, id) => isText(id)));
  const found: { pair: [string, string]; score: number; leftLength: number }[] = [];
  let splitCount = 0;
  for (const [id, token] of tokens.entries()) {
    if (!isText(id)) continue;
    const characters = Array.from(token);
    splitCount += characters.length;
    // The pieces of a very long token are as long as itself: what is copied grows with the square of its length.
    if (splitCount > MAX_SPLIT_COUNT || characters.length > 1024) {
      throw new ModelError(file, 'its tokens are longer than any vocabulary needs.');
    }
    let left = '';
    for (const [index, character] of characters.slice(0, -1).entries()) {
      left += character;
      const right = token.slice(left.length);
      if (!texts.has(left) || !texts.has(right)) continue;
      found.push({ pair: [left, right], score: scores[id] ?? 0, leftLength: index + 1 });
    }
  }
  return found
    .sort((a, b) => b.score - a.score || b.leftLength - a.leftLength)
    .map(({ pair }): [string, string] => pair);
}
