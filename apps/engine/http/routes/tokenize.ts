/** POST /tokenize and /detokenize in vLLM's shapes: what a prompt or messages are in tokens, and tokens in text. */
import { z } from 'zod';
import { invalidRequest } from '../../generation/request-error.ts';
import type { AskedTokens } from '../../generation/tokenize.ts';
import type { EndpointParts } from '../answer-endpoint.ts';
import { messages, readMessages } from '../chat-completion-body.ts';
import { bodySchema, parseParameters, settings, text } from '../parameters.ts';
import type { Route } from '../route.ts';
import { assertServed } from '../served-model.ts';

const tokenizeShape = {
  model: settings.model.optional(),
  prompt: text.optional(),
  messages: messages.optional(),
  add_special_tokens: z.boolean().optional(),
  add_generation_prompt: z.boolean().optional(),
  return_token_strs: z.boolean().optional(),
};

/** `tokens` is read by hand: a schema would collect a fault for each of a million wrong elements. */
const detokenizeShape = {
  model: settings.model.optional(),
  tokens: z.unknown().meta({ type: 'array', items: { type: 'integer', minimum: 0 } }),
};

const tokenized = z.object({
  count: z.int(),
  max_model_len: z.int(),
  tokens: z.array(z.int()),
  token_strs: z.array(z.string()).nullable(),
});

export function tokenizeRoutes({ generation, servedModelNames }: EndpointParts): readonly Route[] {
  return [
    {
      method: 'POST',
      path: '/tokenize',
      doc: {
        summary: 'Tokens of a prompt or of messages',
        body: bodySchema(tokenizeShape),
        ok: { 'application/json': tokenized },
        refusals: [404, 503],
      },
      answer: async (request): Promise<z.infer<typeof tokenized>> => {
        const parsed = parseParameters(tokenizeShape, request.body);
        if (parsed.model !== undefined) assertServed(parsed.model, servedModelNames);
        const { tokenIds, tokens } = await generation.tokenize(askedTokens(parsed));
        return {
          count: tokenIds.length,
          max_model_len: generation.maxModelLenTokens,
          tokens: [...tokenIds],
          token_strs: tokens === null ? null : [...tokens],
        };
      },
    },
    {
      method: 'POST',
      path: '/detokenize',
      doc: {
        summary: 'The text of tokens',
        body: bodySchema(detokenizeShape),
        ok: { 'application/json': z.object({ prompt: z.string() }) },
        refusals: [404, 503],
      },
      answer: async (request) => {
        const parsed = parseParameters(detokenizeShape, request.body);
        if (parsed.model !== undefined) assertServed(parsed.model, servedModelNames);
        const tokenIds = readTokenIds(parsed.tokens, generation.maxModelLenTokens);
        return { prompt: await generation.detokenize(tokenIds) };
      },
    },
  ];
}

/** @throws RequestError */
function askedTokens(parsed: {
  readonly prompt?: string | undefined;
  readonly messages?: z.infer<typeof messages> | undefined;
  readonly add_special_tokens?: boolean | undefined;
  readonly add_generation_prompt?: boolean | undefined;
  readonly return_token_strs?: boolean | undefined;
}): AskedTokens {
  const areStringsWanted = parsed.return_token_strs ?? false;
  if (parsed.messages !== undefined && parsed.prompt === undefined) {
    if (parsed.add_special_tokens === true) {
      throw invalidRequest(
        'unsupported_parameter',
        'add_special_tokens',
        'The chat template adds the special tokens of messages; leave "add_special_tokens" out.',
      );
    }
    return {
      messages: readMessages(parsed.messages),
      isAnswerOpened: parsed.add_generation_prompt ?? true,
      areStringsWanted,
    };
  }
  if (parsed.prompt !== undefined && parsed.messages === undefined) {
    return { prompt: parsed.prompt, areSpecialsAdded: parsed.add_special_tokens ?? true, areStringsWanted };
  }
  throw invalidRequest(
    parsed.prompt === undefined ? 'missing_required_parameter' : 'invalid_value',
    'prompt',
    'Send "prompt" or "messages", one of the two.',
  );
}

function readTokenIds(tokens: unknown, maxCount: number): readonly number[] {
  if (!Array.isArray(tokens) || !tokens.every((id) => Number.isSafeInteger(id) && id >= 0)) {
    throw invalidRequest(
      tokens === undefined ? 'missing_required_parameter' : 'invalid_type',
      'tokens',
      '"tokens" must be a list of token ids (whole numbers from 0).',
    );
  }
  if (tokens.length > maxCount) {
    throw invalidRequest(
      'invalid_value',
      'tokens',
      `"tokens" holds ${tokens.length} ids, more than the ${maxCount} of this model's context.`,
    );
  }
  return tokens;
}
