/** The body of POST /v1/completions: one prompt or several, as text or token ids. */
import { z } from 'zod';
import type { AskedCompletion } from '../generation/accept-request.ts';
import { invalidRequest } from '../generation/request-error.ts';
import {
  type AnswerWishes,
  type AskedAnswerTerms,
  askedSettings,
  termsOf,
  wishesOf,
} from './completion-settings.ts';
import {
  bodySchema,
  MAX_CHOICES,
  MAX_TOP_LOGPROBS,
  parseParameters,
  partial,
  settings,
  text,
  unsupported,
} from './parameters.ts';

export const MAX_PROMPT_COUNT = 64;
/** Prompts times answers to each. */
const MAX_ANSWER_COUNT = 64;

const { model, ...optionalSettings } = settings;

/** Read by hand below: a schema would collect a fault for each of a million wrong elements. */
const shape = {
  model,
  prompt: z.unknown().meta({
    anyOf: [
      { type: 'string', minLength: 1 },
      { type: 'array', minItems: 1, maxItems: MAX_PROMPT_COUNT, items: { type: 'string', minLength: 1 } },
      { type: 'array', minItems: 1, items: { type: 'integer', minimum: 0 } },
      {
        type: 'array',
        minItems: 1,
        maxItems: MAX_PROMPT_COUNT,
        items: { type: 'array', minItems: 1, items: { type: 'integer', minimum: 0 } },
      },
    ],
  }),
  ...partial(optionalSettings),
  logprobs: z
    .union([z.literal(false), z.int().min(0).max(MAX_TOP_LOGPROBS)], {
      error: `expected a whole number from 0 to ${MAX_TOP_LOGPROBS}`,
    })
    .optional(),
  echo: z.boolean().optional(),
  best_of: z.int().min(1).max(MAX_CHOICES).optional(),
};

/** For the OpenAPI document. */
export const completionSchema = bodySchema(shape);

export interface CompletionBody {
  readonly model: string;
  /** One for each prompt, in order. */
  readonly asked: readonly AskedCompletion[];
  readonly wishes: AnswerWishes;
  readonly terms: AskedAnswerTerms;
}

/** @throws RequestError */
export function readCompletionBody(body: unknown): CompletionBody {
  const parsed = parseParameters(shape, body);
  const { echo = false, n = 1, best_of = n } = parsed;
  const logprobCount = typeof parsed.logprobs === 'number' ? parsed.logprobs : null;
  if (best_of !== n) {
    throw unsupported(
      'best_of',
      '"best_of" is not supported beyond "n"; leave it out or send the same number.',
    );
  }
  if (echo && logprobCount !== null) {
    throw unsupported('echo', '"echo" together with "logprobs" is not supported yet; leave one of them out.');
  }
  const asked = askedSettings(parsed, parsed.max_tokens ?? null, logprobCount);
  const prompts = readPrompts(parsed.prompt);
  if (prompts.length * n > MAX_ANSWER_COUNT) {
    throw invalidRequest(
      'invalid_value',
      'n',
      `${prompts.length} prompts with ${n} answers each are ${prompts.length * n} answers; ask for at most ${MAX_ANSWER_COUNT} in one request.`,
    );
  }
  return {
    model: parsed.model,
    asked: prompts.map(({ prompt, param }) => ({ ...asked, prompt, param })),
    wishes: wishesOf(parsed, { areLogprobsWanted: logprobCount !== null, isEchoWanted: echo }),
    terms: termsOf(parsed),
  };
}

function readPrompts(prompt: unknown): readonly Pick<AskedCompletion, 'prompt' | 'param'>[] {
  if (prompt === undefined) {
    throw invalidRequest('missing_required_parameter', 'prompt', 'The parameter "prompt" is required.');
  }
  if (!Array.isArray(prompt) || prompt.length === 0 || typeof prompt[0] === 'number') {
    return [{ prompt: readPrompt(prompt, 'prompt'), param: 'prompt' }];
  }
  if (prompt.length > MAX_PROMPT_COUNT) {
    throw invalidRequest(
      'invalid_value',
      'prompt',
      `"prompt" holds ${prompt.length} prompts; send at most ${MAX_PROMPT_COUNT} in one request.`,
    );
  }
  return prompt.map((each: unknown, index) => {
    const param = `prompt[${index}]`;
    return { prompt: readPrompt(each, param), param };
  });
}

function readPrompt(prompt: unknown, param: string): string | readonly number[] {
  if (typeof prompt === 'string') {
    const checked = text.safeParse(prompt);
    if (prompt !== '' && checked.success) return prompt;
    const fault = prompt === '' ? 'is empty' : checked.error?.issues[0]?.message;
    throw invalidRequest('invalid_value', param, `"${param}" ${fault}.`);
  }
  const isIds = Array.isArray(prompt) && prompt.every((id) => Number.isSafeInteger(id) && id >= 0);
  if (isIds && prompt.length > 0) return prompt;
  throw invalidRequest(
    'invalid_type',
    param,
    `"${param}" must be a text or a list of token ids (whole numbers from 0), and not empty.`,
  );
}
