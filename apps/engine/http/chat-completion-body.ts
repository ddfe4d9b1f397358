/** The body of POST /v1/chat/completions: parsed once, here, into what generation takes and what the answer needs. */
import { z } from 'zod';
import type { AskedChat } from '../generation/accept-request.ts';
import type { ChatMessage } from '../generation/chat-template.ts';
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
  MAX_TOP_LOGPROBS,
  parseParameters,
  partial,
  settings,
  text,
  unsupported,
} from './parameters.ts';

const { model, ...optionalSettings } = settings;

const contentPart = z.looseObject({ type: z.string(), text: text.optional() });

/** OpenAI's own answers may come back as messages, so what they hold at rest is accepted: null, or an empty list. */
const message = z.strictObject({
  role: z.enum(['system', 'developer', 'user', 'assistant', 'tool', 'function']),
  content: z.union([text, z.array(contentPart).min(1)], {
    error: 'expected a string (without NUL) or a list of {"type":"text","text":"..."} parts',
  }),
  name: text.max(64).nullish(),
  refusal: z.null().optional(),
  audio: z.null().optional(),
  function_call: z.null().optional(),
  tool_calls: z.union([z.null(), z.tuple([])]).optional(),
  annotations: z.union([z.null(), z.tuple([])]).optional(),
});

export const messages = z.array(message).min(1);

const shape = {
  model,
  messages,
  ...partial(optionalSettings),
  max_completion_tokens: settings.max_tokens.optional(),
  logprobs: z.boolean().optional(),
  top_logprobs: z.int().min(0).max(MAX_TOP_LOGPROBS).optional(),
};

/** For the OpenAPI document. */
export const chatCompletionSchema = bodySchema(shape);

export interface ChatCompletionBody {
  readonly model: string;
  readonly asked: AskedChat;
  readonly wishes: AnswerWishes;
  readonly terms: AskedAnswerTerms;
}

/** @throws RequestError */
export function readChatCompletionBody(body: unknown): ChatCompletionBody {
  const parsed = parseParameters(shape, body);
  if (parsed.max_tokens !== undefined && parsed.max_completion_tokens !== undefined) {
    if (parsed.max_tokens !== parsed.max_completion_tokens) {
      throw invalidRequest(
        'invalid_value',
        'max_tokens',
        'Send max_completion_tokens or max_tokens, not two that differ.',
      );
    }
  }
  const { logprobs = false, top_logprobs = 0 } = parsed;
  if (!logprobs && top_logprobs > 0) {
    throw invalidRequest('invalid_value', 'top_logprobs', '"top_logprobs" needs "logprobs": true.');
  }
  const maxTokens = parsed.max_completion_tokens ?? parsed.max_tokens ?? null;
  return {
    model: parsed.model,
    asked: {
      ...askedSettings(parsed, maxTokens, logprobs ? top_logprobs : null),
      messages: readMessages(parsed.messages),
    },
    wishes: wishesOf(parsed, { areLogprobsWanted: logprobs, isEchoWanted: false }),
    terms: termsOf(parsed),
  };
}

/** @throws RequestError for what is not text */
export const readMessages = (parsed: z.infer<typeof messages>): readonly ChatMessage[] =>
  parsed.map(chatMessage);

function chatMessage(parsed: z.infer<typeof message>, index: number): ChatMessage {
  const { role, content, name } = parsed;
  if (role === 'tool' || role === 'function') {
    throw unsupported(`messages[${index}].role`, `Messages of role "${role}" are not supported yet.`);
  }
  return {
    role: role === 'developer' ? 'system' : role,
    content:
      typeof content === 'string' ? content : content.map((part, at) => partText(part, index, at)).join('\n'),
    ...(name === null || name === undefined ? {} : { name }),
  };
}

function partText(part: z.infer<typeof contentPart>, messageIndex: number, index: number): string {
  const param = `messages[${messageIndex}].content[${index}]`;
  if (part.type !== 'text') {
    throw unsupported(
      `${param}.type`,
      `Content of type "${part.type.slice(0, 32)}" is not supported; send text.`,
    );
  }
  if (part.text === undefined)
    throw invalidRequest('invalid_type', `${param}.text`, `"${param}.text" is required.`);
  return part.text;
}
