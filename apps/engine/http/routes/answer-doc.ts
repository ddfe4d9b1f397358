/**
 * The shapes of answers for the OpenAPI document: what answer-shapes.ts builds, as schemas. Described loosely where
 * a parameter adds keys; openapi.test.ts holds real answers against them.
 */
import { z } from 'zod';

/** Unknown model, too large, too many at once, nobody to compute it. */
export const answerRefusals = [404, 413, 429, 503] as const;

/** One event of the stream. */
export const eventStream = z.looseObject({
  data: z
    .string()
    .describe('A chunk as JSON, then `[DONE]`; a failure after the first token is `{"error":{...}}`'),
});

const usage = z.looseObject({
  prompt_tokens: z.int(),
  completion_tokens: z.int(),
  total_tokens: z.int(),
  prompt_tokens_details: z.looseObject({ cached_tokens: z.int() }),
});

const head = {
  id: z.string(),
  created: z.int(),
  model: z.string(),
  system_fingerprint: z.string().nullable(),
};

export const chatCompletion = z.looseObject({
  ...head,
  object: z.literal('chat.completion'),
  service_tier: z.string(),
  choices: z.array(
    z.looseObject({
      index: z.int(),
      message: z.looseObject({ role: z.literal('assistant'), content: z.string().nullable() }),
      finish_reason: z.string(),
    }),
  ),
  usage,
});

export const textCompletion = z.looseObject({
  ...head,
  object: z.literal('text_completion'),
  choices: z.array(z.looseObject({ index: z.int(), text: z.string(), finish_reason: z.string() })),
  usage,
});
