/**
 * The room's door: what main.ts builds once for a model and http calls for every request. It joins the tokenizer threads,
 * the vocabulary and the defaults; the rules themselves are in accept-request.ts and answer-text.ts.
 */
import type { GenerationDefaults, LoadedTokenizer } from '@variator/kernels/model';
import {
  type AcceptContext,
  type AcceptedRequest,
  type AskedChat,
  type AskedCompletion,
  acceptChat,
  acceptCompletion,
} from './accept-request.ts';
import { AnswerText } from './answer-text.ts';
import { Vocabulary } from './detokenizer.ts';
import { type AskedTokens, detokenize, type TokenizedText, tokenize } from './tokenize.ts';
import { TokenizerPool, type TokenizerPoolOptions } from './tokenizer-pool.ts';

export interface GenerationOptions {
  readonly tokenizer: LoadedTokenizer;
  readonly generationDefaults: GenerationDefaults;
  readonly modelId: string;
  readonly maxModelLenTokens: number;
  readonly vocabularySize: number;
  /** Tokenizer threads, 1 or 2. */
  readonly threadCount: number;
  readonly templateTimeLimitMs?: number;
  readonly encodeTimeLimitMs?: number;
}

export interface Generation {
  readonly modelId: string;
  readonly maxModelLenTokens: number;
  /** Resolves once a prompt can be tokenised. @throws ModelError when the tokenizer cannot be loaded */
  ready(): Promise<void>;
  /** @throws RequestError */
  acceptChat(asked: AskedChat): Promise<AcceptedRequest>;
  /** @throws RequestError */
  acceptCompletion(asked: AskedCompletion): Promise<AcceptedRequest>;
  answerText(accepted: AcceptedRequest): AnswerText;
  /** The bytes of text a token stands for; none for a special one. */
  tokenBytes(tokenId: number): Uint8Array;
  /** What a prompt or messages would be to the model. @throws RequestError */
  tokenize(asked: AskedTokens): Promise<TokenizedText>;
  /** The text of token ids, special tokens included. @throws RequestError */
  detokenize(tokenIds: readonly number[]): Promise<string>;
  /** A raw prompt as /v1/completions takes it, for the equality checks of control/. @throws TokenizerError */
  encode(text: string): Promise<number[]>;
  close(): Promise<void>;
}

/** Far above any prompt that fits a context: it stops a template that multiplies its input. */
const MAX_RENDERED_CHARS = 16 * 1024 * 1024;

/** @throws ModelError when the tokenizer is of a kind that is not served */
export function createGeneration(options: GenerationOptions): Generation {
  const { tokenizer, modelId, maxModelLenTokens, vocabularySize } = options;
  const vocabulary = new Vocabulary(tokenizer);
  const poolOptions: TokenizerPoolOptions = {
    tokenizer,
    threadCount: options.threadCount,
    maxRenderedChars: MAX_RENDERED_CHARS,
  };
  const pool = new TokenizerPool({
    ...poolOptions,
    ...(options.templateTimeLimitMs === undefined
      ? {}
      : { templateTimeLimitMs: options.templateTimeLimitMs }),
    ...(options.encodeTimeLimitMs === undefined ? {} : { encodeTimeLimitMs: options.encodeTimeLimitMs }),
  });
  const context: AcceptContext = {
    pool,
    tokenizer,
    defaults: options.generationDefaults,
    limits: { maxModelLenTokens, vocabularySize, longestTokenBytes: vocabulary.longestTokenBytes },
  };
  return {
    modelId,
    maxModelLenTokens,
    ready: () => pool.ready(),
    acceptChat: (asked) => acceptChat(asked, context),
    acceptCompletion: (asked) => acceptCompletion(asked, context),
    answerText: (accepted) =>
      new AnswerText(vocabulary, accepted.stop, accepted.stopTokenIds, accepted.sampling.minTokens),
    tokenBytes: (tokenId) => vocabulary.bytesOf(tokenId),
    tokenize: (asked) => tokenize(asked, context),
    detokenize: (tokenIds) => detokenize(tokenIds, context),
    encode: (text) => pool.encode(text, null),
    close: () => pool.close(),
  };
}
