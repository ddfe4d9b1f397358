/** A body of either endpoint as what answer-endpoint.ts answers. Called by the two routes and for every line of a batch. */
import type { Generation } from '../generation/generation.ts';
import type { AskedAnswer } from './answer-endpoint.ts';
import { chatShape, completionShape } from './answer-shapes.ts';
import { readChatCompletionBody } from './chat-completion-body.ts';
import { readCompletionBody } from './completion-body.ts';

/** @throws RequestError */
export function askedChat(body: unknown, generation: Generation): AskedAnswer {
  const { model, asked, wishes, terms } = readChatCompletionBody(body);
  return {
    endpoint: '/v1/chat/completions',
    idPrefix: 'chatcmpl',
    model,
    wishes,
    terms,
    prompts: [() => generation.acceptChat(asked)],
    shape: chatShape,
  };
}

/** @throws RequestError */
export function askedCompletion(body: unknown, generation: Generation): AskedAnswer {
  const { model, asked, wishes, terms } = readCompletionBody(body);
  return {
    endpoint: '/v1/completions',
    idPrefix: 'cmpl',
    model,
    wishes,
    terms,
    prompts: asked.map((each) => () => generation.acceptCompletion(each)),
    shape: completionShape,
  };
}
