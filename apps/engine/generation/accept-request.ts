/**
 * From what a client asked to what the fleet can compute: template, tokens, limits, defaults, a drawn seed. Called by
 * generation.ts with bodies that http has parsed. Refuses with a RequestError; knows nothing of batches or workers.
 */
import { randomBytes } from 'node:crypto';
import type { GenerationDefaults, LoadedTokenizer } from '@variator/kernels/model';
import type { Sampling } from '@variator/scheduler/sequence';
import type { ChatMessage } from './chat-template.ts';
import { invalidRequest, RequestError } from './request-error.ts';
import { TokenizerError, type TokenizerPool } from './tokenizer-pool.ts';

/** What both endpoints ask for; null where the client said nothing. */
export interface AskedSettings {
  readonly temperature: number | null;
  readonly topP: number | null;
  /** 0 or -1 is off. */
  readonly topK: number | null;
  readonly seed: number | null;
  /** An upper bound: what the context leaves is used where it is less. */
  readonly maxTokens: number | null;
  readonly stop: readonly string[];
  readonly ignoreEos: boolean;
  /** Beside the model's own. */
  readonly stopTokenIds: readonly number[];
  readonly minTokens: number;
  readonly minP: number;
  readonly presencePenalty: number;
  readonly frequencyPenalty: number;
  readonly repetitionPenalty: number | null;
  readonly logitBias: readonly (readonly [tokenId: number, bias: number])[];
  /** null: no log-probabilities. */
  readonly logprobCount: number | null;
}

export interface AskedChat extends AskedSettings {
  readonly messages: readonly ChatMessage[];
}

export interface AskedCompletion extends AskedSettings {
  readonly prompt: string | readonly number[];
  /** The parameter to name in errors, e.g. `prompt[3]`. */
  readonly param: string;
}

export interface AcceptedRequest {
  readonly promptTokenIds: readonly number[];
  readonly sampling: Sampling;
  readonly maxTokens: number;
  /** Empty with ignore_eos. */
  readonly stopTokenIds: readonly number[];
  readonly stop: readonly string[];
  /** As it was sent; null where it came as token ids or messages. */
  readonly promptText: string | null;
}

export interface AcceptLimits {
  readonly maxModelLenTokens: number;
  readonly vocabularySize: number;
  /** No token stands for more bytes of text than this. */
  readonly longestTokenBytes: number;
}

export interface AcceptContext {
  readonly pool: TokenizerPool;
  readonly tokenizer: LoadedTokenizer;
  readonly defaults: GenerationDefaults;
  readonly limits: AcceptLimits;
}

/** An odd number near 2^53 times the golden ratio's fraction: choices of nearby seeds do not meet. */
const SEED_STRIDE = 5_566_755_282_872_655n;
const MOST_SEED = 2n ** 53n - 1n;
/** The device takes float32, in which a smaller share is none at all and the step would be refused. */
const LEAST_TOP_P = 2 ** -126;
/** OpenAI's default for /v1/completions. */
const COMPLETION_MAX_TOKENS = 16;
/** A Unicode normaliser may shrink text by this factor before it is tokenised (decomposed Hangul: 9 bytes to 3). */
const NORMALISER_SHRINKS_BY = 4;

/** @throws RequestError */
export async function acceptChat(asked: AskedChat, context: AcceptContext): Promise<AcceptedRequest> {
  if (context.tokenizer.chatTemplate === null) {
    throw invalidRequest(
      'chat_template_missing',
      'messages',
      'This model has no chat template; send its prompt to /v1/completions.',
    );
  }
  // Before the template, too: what is many times too long whatever a template leaves of it costs no thread its time.
  refuseTextThatCannotFit(asked.messages.map(({ content }) => content).join(''), 'messages', context);
  const rendered = await tokenizing('messages', () => context.pool.render(asked.messages));
  refuseTextThatCannotFit(rendered.text, 'messages', context);
  const promptTokenIds =
    rendered.tokenIds ??
    (await tokenizing('messages', () => context.pool.encode(rendered.text, rendered.guard)));
  return accepted(promptTokenIds, asked, 'messages', Number.POSITIVE_INFINITY, null, context);
}

/** @throws RequestError */
export async function acceptCompletion(
  asked: AskedCompletion,
  context: AcceptContext,
): Promise<AcceptedRequest> {
  const { prompt, param } = asked;
  if (typeof prompt !== 'string') {
    const { vocabularySize } = context.limits;
    const stranger = prompt.find((id) => !(Number.isInteger(id) && id >= 0 && id < vocabularySize));
    if (stranger !== undefined) {
      throw invalidRequest(
        'invalid_token_id',
        param,
        `Token id ${stranger} is outside the vocabulary; ids go from 0 to ${vocabularySize - 1}.`,
      );
    }
    return accepted(prompt, asked, param, COMPLETION_MAX_TOKENS, null, context);
  }
  refuseTextThatCannotFit(prompt, param, context);
  const promptTokenIds = await tokenizing(param, () => context.pool.encode(prompt, null));
  return accepted(promptTokenIds, asked, param, COMPLETION_MAX_TOKENS, prompt, context);
}

function accepted(
  promptTokenIds: readonly number[],
  asked: AskedSettings,
  param: string,
  defaultMaxTokens: number,
  promptText: string | null,
  context: AcceptContext,
): AcceptedRequest {
  const { maxModelLenTokens } = context.limits;
  if (promptTokenIds.length === 0) {
    throw invalidRequest('empty_prompt', param, 'The prompt has no tokens; send at least one.');
  }
  if (promptTokenIds.length >= maxModelLenTokens) {
    throw tooLong(param, maxModelLenTokens, `${promptTokenIds.length}`);
  }
  const { defaults } = context;
  const maxTokens = Math.min(asked.maxTokens ?? defaultMaxTokens, maxModelLenTokens - promptTokenIds.length);
  if (asked.minTokens > maxTokens) {
    throw invalidRequest(
      'invalid_value',
      'min_tokens',
      `"min_tokens" is ${asked.minTokens}, and at most ${maxTokens} tokens can be generated.`,
    );
  }
  refuseStrangers(asked.stopTokenIds, 'stop_token_ids', context);
  refuseStrangers(
    asked.logitBias.map(([tokenId]) => tokenId),
    'logit_bias',
    context,
  );
  return {
    promptTokenIds,
    sampling: {
      temperature: asked.temperature ?? defaults.temperature ?? 1,
      topP: Math.max(LEAST_TOP_P, asked.topP ?? defaults.topP ?? 1),
      topK: Math.max(0, asked.topK ?? defaults.topK ?? 0),
      seed: asked.seed === null ? drawSeed() : seedFrom(asked.seed),
      ...rareSampling(asked, context),
    },
    maxTokens,
    stopTokenIds: [
      ...new Set([...(asked.ignoreEos ? [] : context.tokenizer.eosTokenIds), ...asked.stopTokenIds]),
    ],
    stop: asked.stop,
    promptText,
  };
}

/** What few requests ask for is absent where it is off: the scheduler and the device then spend nothing on it. */
function rareSampling(asked: AskedSettings, { limits }: AcceptContext): Partial<Sampling> {
  const { minP, presencePenalty, frequencyPenalty, repetitionPenalty, logitBias, minTokens, logprobCount } =
    asked;
  return {
    ...(minP > 0 ? { minP } : {}),
    ...(presencePenalty !== 0 ? { presencePenalty } : {}),
    ...(frequencyPenalty !== 0 ? { frequencyPenalty } : {}),
    ...(repetitionPenalty !== null && repetitionPenalty !== 1 ? { repetitionPenalty } : {}),
    ...(logitBias.length > 0 ? { logitBias } : {}),
    ...(minTokens > 0 ? { minTokens } : {}),
    ...(logprobCount === null ? {} : { logprobCount: Math.min(logprobCount, limits.vocabularySize) }),
  };
}

/** The device knows no such token: better refused here than in a step that others share. */
function refuseStrangers(tokenIds: readonly number[], param: string, { limits }: AcceptContext): void {
  const stranger = tokenIds.find((id) => id >= limits.vocabularySize);
  if (stranger === undefined) return;
  throw invalidRequest(
    'invalid_token_id',
    param,
    `Token id ${stranger} is outside the vocabulary; ids go from 0 to ${limits.vocabularySize - 1}.`,
  );
}

/**
 * The same request as one of several answers to its prompt: the first keeps its seed, the others get seeds that follow
 * from it, so that a seeded request gives the same answers each time.
 */
export function choiceOf(accepted: AcceptedRequest, choice: number): AcceptedRequest {
  if (choice === 0) return accepted;
  const seed = (BigInt(accepted.sampling.seed) + BigInt(choice) * SEED_STRIDE) & MOST_SEED;
  return { ...accepted, sampling: { ...accepted.sampling, seed: Number(seed) } };
}

/** Spares the tokenizer a text that is too long whatever its tokens are. */
export function refuseTextThatCannotFit(text: string, param: string, context: AcceptContext): void {
  const { maxModelLenTokens, longestTokenBytes } = context.limits;
  const shrinks = context.tokenizer.tokenizerJson.normalizer == null ? 1 : NORMALISER_SHRINKS_BY;
  const leastTokens = Math.ceil(Buffer.byteLength(text) / (longestTokenBytes * shrinks));
  if (leastTokens >= maxModelLenTokens) throw tooLong(param, maxModelLenTokens, `at least ${leastTokens}`);
}

function tooLong(param: string, maxModelLenTokens: number, promptTokens: string): RequestError {
  return invalidRequest(
    'context_length_exceeded',
    param,
    `This model's maximum context length is ${maxModelLenTokens} tokens. However, your prompt has ${promptTokens} tokens and needs room for at least one more. Please shorten it.`,
  );
}

/** Runs a job of the pool. @throws RequestError where the pool gave up on it */
export async function tokenizing<T>(param: string, run: () => Promise<T>): Promise<T> {
  try {
    return await run();
  } catch (error) {
    if (!(error instanceof TokenizerError)) throw error;
    if (error.fault === 'refused') {
      throw invalidRequest(
        'chat_template_rejected',
        param,
        `The model's chat template cannot render these messages: ${error.message}`,
      );
    }
    if (error.fault === 'timedOut' || error.fault === 'lost') {
      throw invalidRequest(
        'prompt_too_complex',
        param,
        `The prompt could not be prepared: ${error.message}.`,
      );
    }
    if (error.fault === 'full' || error.fault === 'closed') {
      throw new RequestError({
        status: 503,
        type: 'server_error',
        code: 'server_error',
        message: `The server cannot take the prompt now: ${error.message}.`,
        retryAfterMs: 1000,
      });
    }
    throw error;
  }
}

/** A whole number from 0 to 2^53 - 1. */
const drawSeed = (): number => Number(randomBytes(8).readBigUInt64BE() >> 11n);

/** Negative seeds are legal for clients; they wrap into the range the device takes. */
const seedFrom = (asked: number): number => (asked >= 0 ? asked : asked + Number.MAX_SAFE_INTEGER + 1);
