/**
 * Answers in OpenAI's shapes: chunks and whole objects of /v1/chat/completions and /v1/completions, token ids as vLLM
 * returns them. One shape belongs to one response. Made by the endpoints, driven by send-answers.ts; computes nothing.
 */
import type { ServiceTier } from '@variator/scheduler/sequence';
import { chatLogprobs, completionLogprobs, type ScoredToken, type TokenBytes } from './logprob-shapes.ts';

export interface Usage {
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
}

/** A generated token, with its log-probabilities where they were asked for. */
export type AnswerToken = ScoredToken;

export interface WholeAnswer {
  readonly text: string;
  readonly tokens: readonly AnswerToken[];
  readonly reason: 'stop' | 'length';
}

export interface AnswerShape {
  /** Chunks before the first delta. */
  opening(): readonly object[];
  delta(index: number, text: string, tokens: readonly AnswerToken[]): object;
  finish(index: number, reason: 'stop' | 'length'): object;
  usage(usage: Usage): object;
  whole(answers: readonly WholeAnswer[], usage: Usage): object;
}

export interface ShapeOptions {
  readonly id: string;
  readonly createdAt: number;
  readonly modelId: string;
  readonly isUsageWanted: boolean;
  readonly areTokenIdsWanted: boolean;
  /** As used. */
  readonly serviceTier: ServiceTier;
  readonly areLogprobsWanted: boolean;
  /** By index of the answer. */
  readonly promptTokenIds: readonly (readonly number[])[];
  /** Texts that go in front of the answers', by index; '' for none. */
  readonly echoes: readonly string[];
  readonly tokenBytes: TokenBytes;
}

const usageBody = (usage: Usage): object => ({
  prompt_tokens: usage.promptTokenCount,
  completion_tokens: usage.completionTokenCount,
  total_tokens: usage.promptTokenCount + usage.completionTokenCount,
  prompt_tokens_details: { cached_tokens: usage.cachedTokenCount },
  completion_tokens_details: {
    reasoning_tokens: 0,
    accepted_prediction_tokens: 0,
    rejected_prediction_tokens: 0,
  },
});

/** What every chunk and every whole answer carries. */
const head = (options: ShapeOptions, object: string): object => ({
  id: options.id,
  object,
  created: Math.floor(options.createdAt / 1000),
  model: options.modelId,
  system_fingerprint: null,
  service_tier: options.serviceTier,
});

export function chatShape(options: ShapeOptions): AnswerShape {
  const wanted = options.areTokenIdsWanted;
  const chunk = (choices: readonly object[], rest: object = {}): object => ({
    ...head(options, 'chat.completion.chunk'),
    choices,
    ...(options.isUsageWanted ? { usage: null } : {}),
    ...rest,
  });
  const logprobsOf = (tokens: readonly AnswerToken[]): object | null =>
    options.areLogprobsWanted && tokens.length > 0 ? chatLogprobs(tokens, options.tokenBytes) : null;
  const choice = (
    index: number,
    delta: object,
    reason: string | null,
    tokens: readonly AnswerToken[],
  ): object => ({
    index,
    delta,
    logprobs: logprobsOf(tokens),
    finish_reason: reason,
    ...(wanted ? { token_ids: tokens.map(({ tokenId }) => tokenId) } : {}),
  });
  return {
    opening: () =>
      options.promptTokenIds.map((promptTokenIds, index) =>
        chunk(
          [choice(index, { role: 'assistant', content: '' }, null, [])],
          wanted && index === 0 ? { prompt_token_ids: promptTokenIds } : {},
        ),
      ),
    delta: (index, text, tokens) => chunk([choice(index, { content: text }, null, tokens)]),
    finish: (index, reason) => chunk([choice(index, {}, reason, [])]),
    usage: (usage) => chunk([], { usage: usageBody(usage) }),
    whole: (answers, usage) => ({
      ...head(options, 'chat.completion'),
      choices: answers.map((answer, index) => ({
        index,
        message: { role: 'assistant', content: answer.text, refusal: null, annotations: [] },
        logprobs: logprobsOf(answer.tokens),
        finish_reason: answer.reason,
        ...(wanted ? { token_ids: answer.tokens.map(({ tokenId }) => tokenId) } : {}),
      })),
      usage: usageBody(usage),
      ...(wanted ? { prompt_token_ids: options.promptTokenIds[0] ?? [] } : {}),
    }),
  };
}

export function completionShape(options: ShapeOptions): AnswerShape {
  const wanted = options.areTokenIdsWanted;
  const opened = new Set<number>();
  const chunk = (choices: readonly object[], rest: object = {}): object => ({
    ...head(options, 'text_completion'),
    choices,
    ...(options.isUsageWanted ? { usage: null } : {}),
    ...rest,
  });
  /** Characters that the tokens before stood for, by index. */
  const offsets = options.echoes.map((echo) => echo.length);
  const logprobsOf = (index: number, tokens: readonly AnswerToken[]): object | null => {
    if (!options.areLogprobsWanted || tokens.length === 0) return null;
    const { body, nextOffset } = completionLogprobs(tokens, offsets[index] ?? 0, options.tokenBytes);
    offsets[index] = nextOffset;
    return body;
  };
  const choice = (
    index: number,
    text: string,
    reason: string | null,
    tokens: readonly AnswerToken[],
  ): object => {
    const isFirst = !opened.has(index);
    opened.add(index);
    return {
      index,
      text: isFirst ? `${options.echoes[index] ?? ''}${text}` : text,
      logprobs: logprobsOf(index, tokens),
      finish_reason: reason,
      ...(wanted ? { token_ids: tokens.map(({ tokenId }) => tokenId) } : {}),
      ...(wanted && isFirst ? { prompt_token_ids: options.promptTokenIds[index] ?? [] } : {}),
    };
  };
  return {
    opening: () => [],
    delta: (index, text, tokens) => chunk([choice(index, text, null, tokens)]),
    finish: (index, reason) => chunk([choice(index, '', reason, [])]),
    usage: (usage) => chunk([], { usage: usageBody(usage) }),
    whole: (answers, usage) => ({
      ...head(options, 'text_completion'),
      choices: answers.map((answer, index) => choice(index, answer.text, answer.reason, answer.tokens)),
      usage: usageBody(usage),
    }),
  };
}
