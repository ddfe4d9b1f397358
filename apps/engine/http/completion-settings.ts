/** What the two bodies have in common once parsed: sampling and limits, the wishes about the answer's shape, the session. */
import type { AskedSettings } from '../generation/accept-request.ts';
import { invalidRequest } from '../generation/request-error.ts';
import type { AskedTerms } from './request-terms.ts';

/** How the answer should look; nothing here changes its tokens. */
export interface AnswerWishes {
  readonly isStreamed: boolean;
  readonly isUsageWanted: boolean;
  readonly areTokenIdsWanted: boolean;
  /** Log-probabilities with every token. */
  readonly areLogprobsWanted: boolean;
  /** The prompt's text in front of the answer's. */
  readonly isEchoWanted: boolean;
  /** Answers to each prompt. */
  readonly choiceCount: number;
}

interface ParsedSettings {
  readonly temperature?: number | undefined;
  readonly top_p?: number | undefined;
  readonly top_k?: number | undefined;
  readonly seed?: number | undefined;
  readonly stop?: string | readonly string[] | undefined;
  readonly ignore_eos?: boolean | undefined;
  readonly stream?: boolean | undefined;
  readonly stream_options?: { readonly include_usage?: boolean | null | undefined } | undefined;
  readonly return_token_ids?: boolean | undefined;
  readonly min_tokens?: number | undefined;
  readonly min_p?: number | undefined;
  readonly presence_penalty?: number | undefined;
  readonly frequency_penalty?: number | undefined;
  readonly repetition_penalty?: number | undefined;
  readonly logit_bias?: Readonly<Record<string, number>> | undefined;
  readonly stop_token_ids?: readonly number[] | undefined;
  readonly n?: number | undefined;
}

/** @param logprobCount likeliest tokens beside each token's own log-probability; null for none at all */
export function askedSettings(
  parsed: ParsedSettings,
  maxTokens: number | null,
  logprobCount: number | null,
): AskedSettings {
  const { stop = [] } = parsed;
  return {
    temperature: parsed.temperature ?? null,
    topP: parsed.top_p ?? null,
    topK: parsed.top_k ?? null,
    seed: parsed.seed ?? null,
    maxTokens,
    stop: typeof stop === 'string' ? [stop] : stop,
    ignoreEos: parsed.ignore_eos ?? false,
    stopTokenIds: parsed.stop_token_ids ?? [],
    minTokens: parsed.min_tokens ?? 0,
    minP: parsed.min_p ?? 0,
    presencePenalty: parsed.presence_penalty ?? 0,
    frequencyPenalty: parsed.frequency_penalty ?? 0,
    repetitionPenalty: parsed.repetition_penalty ?? null,
    logitBias: Object.entries(parsed.logit_bias ?? {}).map(([id, bias]) => [Number(id), bias] as const),
    logprobCount,
  };
}

/** @throws RequestError */
export function wishesOf(
  parsed: ParsedSettings,
  more: { readonly areLogprobsWanted: boolean; readonly isEchoWanted: boolean },
): AnswerWishes {
  const isStreamed = parsed.stream ?? false;
  if (parsed.stream_options !== undefined && !isStreamed) {
    throw invalidRequest('invalid_value', 'stream_options', '"stream_options" needs "stream": true.');
  }
  return {
    isStreamed,
    isUsageWanted: parsed.stream_options?.include_usage ?? false,
    areTokenIdsWanted: parsed.return_token_ids ?? false,
    choiceCount: parsed.n ?? 1,
    ...more,
  };
}

/** Whose conversation it is and how urgent, as far as the body says; '' where it does not. */
export type AskedAnswerTerms = Pick<AskedTerms, 'serviceTier' | 'session' | 'program'>;

export function termsOf(parsed: object): AskedAnswerTerms {
  const { prompt_cache_key, user, metadata, service_tier } = parsed as {
    prompt_cache_key?: string;
    user?: string;
    metadata?: Readonly<Record<string, string>>;
    service_tier?: AskedTerms['serviceTier'];
  };
  return {
    serviceTier: service_tier ?? '',
    session: metadata?.session_id || prompt_cache_key || user || '',
    program: metadata?.program_id || '',
  };
}
