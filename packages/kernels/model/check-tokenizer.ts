/**
 * Whether a tokenizer.json means what it says: every id is one of the model's, every merge joins two tokens to a third.
 * Called by tokenizer-files.ts. What `@huggingface/tokenizers` would take without a word and then answer with `undefined`
 * or with an id that the model does not have is refused here, by name.
 */
import { z } from 'zod';
import { parseFields } from './json-file.ts';
import { ModelError } from './model-error.ts';

const tokenizerSchema = z.object({
  model: z.object({
    type: z.string().nullish(),
    vocab: z.record(z.string(), z.unknown()),
    merges: z.array(z.unknown()),
    unk_token: z.string().nullish(),
    continuing_subword_prefix: z.string().nullish(),
  }),
  added_tokens: z
    .array(
      z.object({
        id: z.int().min(0),
        content: z.string().min(1),
        special: z.boolean().default(false),
      }),
    )
    .default([]),
});

/** SentencePiece's three bytes for a space are the most that is known. */
const MOST_GROWTH = 64;

export interface CheckedTokenizer {
  /** Ids by token, without the added ones. */
  readonly vocabulary: ReadonlyMap<string, number>;
  readonly addedTokens: readonly { readonly id: number; readonly content: string }[];
  /** The JSON to tokenize with: without added tokens that the model has no row for, whose text is text like any other. */
  readonly usable: Record<string, unknown>;
}

/** @throws ModelError */
export function checkTokenizer(
  file: string,
  json: Record<string, unknown>,
  vocabularySize: number,
): CheckedTokenizer {
  const kind = (json.model as { type?: unknown } | null | undefined)?.type ?? 'BPE';
  if (kind !== 'BPE') {
    throw new ModelError(file, `its tokenizer is of kind ${JSON.stringify(kind)}; "BPE" is read.`);
  }
  const { model, added_tokens: addedTokens } = parseFields(file, tokenizerSchema, json);
  const vocabulary = readVocabulary(file, model.vocab, vocabularySize);
  const prefixLength = model.continuing_subword_prefix?.length ?? 0;
  for (const merge of model.merges) checkMerge(file, merge, prefixLength, vocabulary);
  for (const key of ['normalizer', 'pre_tokenizer']) {
    if (growthOf(json[key]) > MOST_GROWTH) {
      throw new ModelError(file, `its "${key}" makes a text more than ${MOST_GROWTH} times as long.`);
    }
  }
  // Models that were tuned with a padding token often have it there and nowhere else.
  const isKnown = ({ id }: { id: number }) => id < vocabularySize;
  const raw = (json.added_tokens ?? []) as { id: number }[];
  const usable = raw.every(isKnown) ? json : { ...json, added_tokens: raw.filter(isKnown) };
  return { vocabulary, addedTokens: addedTokens.filter(isKnown), usable };
}

/** How many times as long a text may become by what is put in the place of its characters, one step upon the other. */
function growthOf(step: unknown): number {
  if (typeof step !== 'object' || step === null) return 1;
  const inner = Object.values(step).flatMap((value: unknown) => (Array.isArray(value) ? value : []));
  const { content, prepend } = step as { content?: unknown; prepend?: unknown };
  const own = [content, prepend].reduce<number>(
    (most, text) => (typeof text === 'string' ? Math.max(most, text.length) : most),
    1,
  );
  return inner.reduce<number>((product, each) => product * growthOf(each), own);
}

function readVocabulary(
  file: string,
  tokens: Readonly<Record<string, unknown>>,
  vocabularySize: number,
): ReadonlyMap<string, number> {
  const vocabulary = new Map<string, number>();
  const tokenOf = new Map<number, string>();
  for (const [token, id] of Object.entries(tokens)) {
    if (typeof id !== 'number' || !Number.isInteger(id) || id < 0) {
      throw new ModelError(file, `the token "${token}" has no id.`);
    }
    if (id >= vocabularySize) throw idBeyond(file, token, id, vocabularySize);
    const other = tokenOf.get(id);
    if (other !== undefined) throw new ModelError(file, `"${other}" and "${token}" are both token ${id}.`);
    tokenOf.set(id, token);
    vocabulary.set(token, id);
  }
  return vocabulary;
}

/** A pair of tokens, or both with a space between them. */
function checkMerge(
  file: string,
  merge: unknown,
  prefixLength: number,
  vocabulary: ReadonlyMap<string, number>,
): void {
  const pair: unknown[] = typeof merge === 'string' ? merge.split(' ') : Array.isArray(merge) ? merge : [];
  const [left, right] = pair;
  if (pair.length !== 2 || typeof left !== 'string' || typeof right !== 'string') {
    throw new ModelError(file, `the merge ${JSON.stringify(merge)} is not a pair of tokens.`);
  }
  const absent = [left, right, left + right.slice(prefixLength)].find((token) => !vocabulary.has(token));
  if (absent !== undefined) {
    throw new ModelError(file, `the merge of "${left}" and "${right}" needs the token "${absent}".`);
  }
}

const idBeyond = (file: string, token: string, id: number, vocabularySize: number): ModelError =>
  new ModelError(
    file,
    `the token "${token}" has the id ${id}; the model's go from 0 to ${vocabularySize - 1}.`,
  );
