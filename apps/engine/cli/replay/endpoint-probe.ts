/**
 * Finds out once, before the first request of a trace, what an endpoint takes: its model, token ids as prompts, forced
 * lengths, and how many tokens the vocabulary's words are. Asks by small requests; a 400 is an answer.
 */
import { ConfigError } from '../../config/config-error.ts';
import type { AskedAnswer, Endpoint, EndpointClient, SeenAnswer } from './answer-request.ts';
import { vocabulary } from './prompt-writer.ts';

export type Api = 'completions' | 'chat';

export interface EndpointAbilities {
  readonly modelId: string;
  /** null where the server does not say. */
  readonly maxModelLenTokens: number | null;
  /** For prompts made of parts; messages always go to chat. */
  readonly api: Api;
  /** To draw prompts from; null: text it is. */
  readonly tokenIds: readonly number[] | null;
  readonly tokensPerWord: number;
  readonly takesIgnoreEos: boolean;
  readonly takesUsage: boolean;
}

const PROBE_LIMIT_MS = 60_000;

/** @throws ConfigError where nothing answers, or not as OpenAI's endpoint does */
export async function probeEndpoint(
  endpoint: Endpoint,
  client: EndpointClient,
  wanted: { readonly api: Api | null; readonly modelId: string | null },
): Promise<EndpointAbilities> {
  const model = await servedModel(endpoint, wanted.modelId);
  const signal = AbortSignal.timeout(PROBE_LIMIT_MS);
  const ask = (path: AskedAnswer['path'], body: object): Promise<SeenAnswer> =>
    client.ask(
      {
        path,
        headers: {},
        body: { model: model.modelId, temperature: 0, max_tokens: 2, stream: true, ...body },
      },
      signal,
    );
  const chat = (words: number, body: object) =>
    ask('/v1/chat/completions', { messages: [{ role: 'user', content: wordsOf(words) }], ...body });

  const usage = { stream_options: { include_usage: true } };
  const bodies = [{ ignore_eos: true, ...usage }, { ...usage }, { ignore_eos: true }, {}];
  const tokenIds = wanted.api === 'chat' ? null : await vocabularyIds(endpoint, model.modelId, ask);
  const path = tokenIds === null && wanted.api !== 'completions' ? 'chat' : 'completions';
  let refused: SeenAnswer | null = null;
  for (const body of bodies) {
    const seen =
      path === 'chat'
        ? await chat(40, body)
        : await ask('/v1/completions', { prompt: tokenIds ?? wordsOf(40), ...body });
    if (seen.fault === 'http-400' || seen.fault === 'http-422') {
      refused = seen;
      continue;
    }
    if (seen.fault !== '') {
      throw new ConfigError(
        `${endpoint.url} does not answer a small request: ${seen.fault} ${seen.faultDetail}`.trim(),
      );
    }
    return {
      ...model,
      api: path,
      tokenIds,
      tokensPerWord: await tokensPerWord(chat),
      takesIgnoreEos: 'ignore_eos' in body,
      takesUsage: 'stream_options' in body,
    };
  }
  throw new ConfigError(`${endpoint.url} refuses a small request: ${refused?.faultDetail ?? ''}`);
}

/** The difference of two prompts: what the chat template adds falls out. 1 where the server does not count. */
async function tokensPerWord(chat: (words: number, body: object) => Promise<SeenAnswer>): Promise<number> {
  const body = { stream_options: { include_usage: true } };
  const [few, many] = [await chat(20, body), await chat(120, body)];
  const measured = ((many.usage?.promptTokenCount ?? 0) - (few.usage?.promptTokenCount ?? 0)) / 100;
  return measured >= 0.5 && measured <= 10 ? measured : 1;
}

const wordsOf = (count: number): string =>
  Array.from({ length: count }, (_, index) => vocabulary[index % vocabulary.length]).join(' ');

/** As the server's tokenizer gives them, and only where it takes them back as a prompt. */
async function vocabularyIds(
  endpoint: Endpoint,
  modelId: string,
  ask: (path: AskedAnswer['path'], body: object) => Promise<SeenAnswer>,
): Promise<readonly number[] | null> {
  const body = { model: modelId, prompt: vocabulary.join(' '), max_tokens: 1, return_token_ids: true };
  const response = await fetch(`${endpoint.url}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...authorization(endpoint) },
    body: JSON.stringify(body),
    signal: AbortSignal.timeout(PROBE_LIMIT_MS),
  });
  const answer = (await response.json().catch(() => null)) as {
    prompt_token_ids?: unknown;
    choices?: readonly { prompt_token_ids?: unknown }[];
  } | null;
  const found = answer?.choices?.[0]?.prompt_token_ids ?? answer?.prompt_token_ids;
  if (!response.ok || !Array.isArray(found)) return null;
  // The first may be the token that starts every text.
  const ids = [...new Set(found.slice(1).filter((id): id is number => Number.isSafeInteger(id) && id >= 0))];
  if (ids.length < 16) return null;
  const { fault } = await ask('/v1/completions', { prompt: ids.slice(0, 16) });
  return fault === '' ? ids : null;
}

const authorization = ({ apiKey }: Endpoint): Record<string, string> =>
  apiKey === null ? {} : { authorization: `Bearer ${apiKey}` };

/** @throws ConfigError */
async function servedModel(
  endpoint: Endpoint,
  wanted: string | null,
): Promise<Pick<EndpointAbilities, 'modelId' | 'maxModelLenTokens'>> {
  let response: Response;
  try {
    response = await fetch(`${endpoint.url}/v1/models`, {
      headers: authorization(endpoint),
      signal: AbortSignal.timeout(10_000),
    });
  } catch {
    throw new ConfigError(
      `Nothing answers at ${endpoint.url}; start the engine with npm start, or say where it is with --url.`,
    );
  }
  if (response.status === 401 || response.status === 403) {
    throw new ConfigError(`${endpoint.url} refuses the key (${response.status}); is VARIATOR_API_KEY right?`);
  }
  const list = (response.ok ? await response.json().catch(() => null) : null) as {
    data?: readonly { id?: unknown; max_model_len?: unknown }[];
  } | null;
  const models = Array.isArray(list?.data) ? list.data : [];
  const model = models.find(({ id }) => id === wanted) ?? (wanted === null ? models[0] : undefined);
  const modelId = wanted ?? (typeof model?.id === 'string' ? model.id : null);
  if (modelId === null) {
    throw new ConfigError(`${endpoint.url}/v1/models names no model; say which with --model.`);
  }
  const length = model?.max_model_len;
  return { modelId, maxModelLenTokens: typeof length === 'number' ? length : null };
}
