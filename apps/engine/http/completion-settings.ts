/** What the two bodies have in common once parsed: sampling and limits, the wishes about the answer's shape, the session. */
import type { AskedSettings } from '../generation/accept-request.ts';
import { invalidRequest } from '../generation/request-error.ts';
import type { AskedTerms } from './request-terms.ts';

/** How the answer should look; nothing here changes its tokens. */
export interface AnswerWishes {
  readonly isStreamed: boolean;
  readonly isUsageWanted: boolean;
  readonly areTokenIdsWanted: boolean;
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
}

export function askedSettings(parsed: ParsedSettings, maxTokens: number | null): AskedSettings {
  const { stop = [] } = parsed;
  return {
    temperature: parsed.temperature ?? null,
    topP: parsed.top_p ?? null,
    topK: parsed.top_k ?? null,
    seed: parsed.seed ?? null,
    maxTokens,
    stop: typeof stop === 'string' ? [stop] : stop,
    ignoreEos: parsed.ignore_eos ?? false,
  };
}

/** @throws RequestError */
export function wishesOf(parsed: ParsedSettings): AnswerWishes {
  const isStreamed = parsed.stream ?? false;
  if (parsed.stream_options !== undefined && !isStreamed) {
    throw invalidRequest('invalid_value', 'stream_options', '"stream_options" needs "stream": true.');
  }
  return {
    isStreamed,
    isUsageWanted: parsed.stream_options?.include_usage ?? false,
    areTokenIdsWanted: parsed.return_token_ids ?? false,
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
