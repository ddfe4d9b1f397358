/**
 * Answers in OpenAI's shapes: chunks and whole objects of /v1/chat/completions and /v1/completions, token ids as vLLM
 * returns them. One shape belongs to one response. Made by the endpoints, driven by send-answers.ts; computes nothing.
 */
import type { ServiceTier } from '@variator/scheduler/sequence';

export interface Usage {
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
}

export interface WholeAnswer {
  readonly text: string;
  readonly tokenIds: readonly number[];
  readonly reason: 'stop' | 'length';
}

export interface AnswerShape {
  /** Chunks before the first delta. */
  opening(): readonly object[];
  delta(index: number, text: string, tokenIds: readonly number[]): object;
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
  /** By index of the answer. */
  readonly promptTokenIds: readonly (readonly number[])[];
}

const usageBody = (usage: Usage): object => ({
  prompt_tokens: usage.promptTokenCount,
  completion_tokens: usage.completionTokenCount,
  total_tokens: usage.promptTokenCount + usage.completionTokenCount,
  prompt_tokens_details: { cached_tokens: usage.cachedTokenCount },
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
  const choice = (index: number, delta: object, reason: string | null, ids: readonly number[]): object => ({
    index,
    delta,
    logprobs: null,
    finish_reason: reason,
    ...(wanted ? { token_ids: ids } : {}),
  });
  return {
    opening: () => [
      chunk(
        [choice(0, { role: 'assistant', content: '' }, null, [])],
        wanted ? { prompt_token_ids: options.promptTokenIds[0] ?? [] } : {},
      ),
    ],
    delta: (index, text, ids) => chunk([choice(index, { content: text }, null, ids)]),
    finish: (index, reason) => chunk([choice(index, {}, reason, [])]),
    usage: (usage) => chunk([], { usage: usageBody(usage) }),
    whole: (answers, usage) => ({
      ...head(options, 'chat.completion'),
      choices: answers.map((answer, index) => ({
        index,
        message: { role: 'assistant', content: answer.text, refusal: null, annotations: [] },
        logprobs: null,
        finish_reason: answer.reason,
        ...(wanted ? { token_ids: answer.tokenIds } : {}),
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
  const choice = (index: number, text: string, reason: string | null, ids: readonly number[]): object => {
    const isFirst = !opened.has(index);
    opened.add(index);
    return {
      index,
      text,
      logprobs: null,
      finish_reason: reason,
      ...(wanted ? { token_ids: ids } : {}),
      ...(wanted && isFirst ? { prompt_token_ids: options.promptTokenIds[index] ?? [] } : {}),
    };
  };
  return {
    opening: () => [],
    delta: (index, text, ids) => chunk([choice(index, text, null, ids)]),
    finish: (index, reason) => chunk([choice(index, '', reason, [])]),
    usage: (usage) => chunk([], { usage: usageBody(usage) }),
    whole: (answers, usage) => ({
      ...head(options, 'text_completion'),
      choices: answers.map((answer, index) => choice(index, answer.text, answer.reason, answer.tokenIds)),
      usage: usageBody(usage),
    }),
  };
}
