/**
 * Token ids to text, one token at a time, exact for every UTF-8 split: a byte table and a streaming decoder instead of
 * decoding a window again. `Vocabulary` is built once for a model; a `Detokenizer` belongs to one answer.
 * Byte-level BPE and SentencePiece with byte fallback; any other decoder is refused when the model is loaded. A space in front
 * of an answer's first word stays: it stands between the prompt and what continues it.
 */
import type { LoadedTokenizer } from '@variator/kernels/model';
import { ModelError } from '@variator/kernels/model/model-error';

const EMPTY = new Uint8Array(0);

/** GPT-2's table: printable bytes stand for themselves, the others for code points from 256 on. */
const byteOfChar: ReadonlyMap<string, number> = (() => {
  const table = new Map<string, number>();
  let shifted = 256;
  for (let byte = 0; byte < 256; byte += 1) {
    const isPrintable =
      (byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || (byte >= 174 && byte <= 255);
    table.set(String.fromCharCode(isPrintable ? byte : shifted), byte);
    if (!isPrintable) shifted += 1;
  }
  return table;
})();

const decodeByteLevel = (token: string): Uint8Array =>
  Uint8Array.from(token, (char) => byteOfChar.get(char) ?? 0x3f);

/** `<0xE5>` is that byte, U+2581 a space. */
function decodeSentencePiece(token: string): Uint8Array {
  const byte = /^<0x([0-9A-Fa-f]{2})>$/.exec(token)?.[1];
  if (byte !== undefined) return Uint8Array.of(Number.parseInt(byte, 16));
  return new TextEncoder().encode(token.replaceAll('\u2581', ' '));
}

export class Vocabulary {
  readonly #tokens: (string | undefined)[] = [];
  readonly #bytes: (Uint8Array | undefined)[] = [];
  readonly #decode: (token: string) => Uint8Array;
  /** No token stands for more bytes of text than this. */
  readonly longestTokenBytes: number;

  /** @throws ModelError when the tokenizer is of another kind */
  constructor(tokenizer: LoadedTokenizer) {
    const { decoder, model, added_tokens } = tokenizer.tokenizerJson as {
      decoder?: unknown;
      model?: { vocab?: Record<string, number> };
      added_tokens?: { id: number; content: string; special: boolean }[];
    };
    if (isByteLevel(decoder)) this.#decode = decodeByteLevel;
    else if (isSentencePiece(decoder)) this.#decode = decodeSentencePiece;
    else {
      throw new ModelError(
        tokenizer.file,
        'its decoder is neither that of a byte-level BPE nor that of a SentencePiece with byte fallback.',
      );
    }
    let longestTokenBytes = 1;
    for (const [token, id] of Object.entries(model?.vocab ?? {})) {
      this.#tokens[id] = token;
      // A character of a byte-level token is one byte; one of a SentencePiece token is at most three.
      const mostBytes = isByteLevel(decoder) ? token.length : 3 * token.length;
      longestTokenBytes = Math.max(longestTokenBytes, mostBytes);
    }
    for (const added of added_tokens ?? []) {
      const bytes = new TextEncoder().encode(added.content);
      this.#bytes[added.id] = added.special ? EMPTY : bytes;
      longestTokenBytes = Math.max(longestTokenBytes, bytes.length);
    }
    this.longestTokenBytes = longestTokenBytes;
  }

  /** The bytes of text a token stands for; none for special tokens and ids outside the vocabulary. */
  bytesOf(tokenId: number): Uint8Array {
    const known = this.#bytes[tokenId];
    if (known !== undefined) return known;
    const token = this.#tokens[tokenId];
    const bytes = token === undefined ? EMPTY : this.#decode(token);
    this.#bytes[tokenId] = bytes;
    return bytes;
  }
}

export class Detokenizer {
  readonly #vocabulary: Vocabulary;
  readonly #decoder = new TextDecoder('utf-8', { ignoreBOM: true });

  constructor(vocabulary: Vocabulary) {
    this.#vocabulary = vocabulary;
  }

  /** The text that is certain now; '' while a character is incomplete. */
  push(tokenId: number): string {
    const bytes = this.#vocabulary.bytesOf(tokenId);
    return bytes.length === 0 ? '' : this.#decoder.decode(bytes, { stream: true });
  }

  /** What an answer that ended inside a character leaves: one U+FFFD, or ''. */
  end(): string {
    return this.#decoder.decode();
  }
}

function isByteLevel(decoder: unknown): boolean {
  if (typeof decoder !== 'object' || decoder === null) return false;
  const { type } = decoder as { type?: unknown };
  return type === 'ByteLevel' || (type === 'Sequence' && stepsOf(decoder).some(isByteLevel));
}

/** Whatever else the decoder of a tokenizer.json does, it turns U+2581 into spaces and joins the bytes of characters. */
function isSentencePiece(decoder: unknown): boolean {
  if (typeof decoder !== 'object' || decoder === null) return false;
  const steps = stepsOf(decoder);
  return (
    steps.some(({ type }) => type === 'ByteFallback') &&
    steps.some(({ type, content }) => type === 'Replace' && content === ' ') &&
    steps.every(({ type }) => ['Replace', 'ByteFallback', 'Fuse', 'Strip'].includes(String(type)))
  );
}

/** Of a sequence of decoders; what is none counts as one without a type. */
function stepsOf(decoder: object): readonly { readonly type?: unknown; readonly content?: unknown }[] {
  const { decoders } = decoder as { decoders?: unknown };
  return Array.isArray(decoders) ? decoders.map((step: unknown) => Object(step)) : [];
}
