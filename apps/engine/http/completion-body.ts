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
import { bodySchema, parseParameters, partial, settings, text } from './parameters.ts';

export const MAX_PROMPT_COUNT = 64;

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
  const asked = askedSettings(parsed, parsed.max_tokens ?? null);
  return {
    model: parsed.model,
    asked: readPrompts(parsed.prompt).map(({ prompt, param }) => ({ ...asked, prompt, param })),
    wishes: wishesOf(parsed),
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
