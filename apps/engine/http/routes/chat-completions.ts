/** POST /v1/chat/completions. */

import { answer, type EndpointParts } from '../answer-endpoint.ts';
import { chatShape } from '../answer-shapes.ts';
import { chatCompletionSchema, readChatCompletionBody } from '../chat-completion-body.ts';
import type { Route } from '../route.ts';
import { answerRefusals, chatCompletion, eventStream } from './answer-doc.ts';

export function chatCompletionRoutes(parts: EndpointParts): readonly Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/chat/completions',
      doc: {
        summary: 'An answer to messages, whole or streamed',
        body: chatCompletionSchema,
        ok: { 'application/json': chatCompletion, 'text/event-stream': eventStream },
        refusals: answerRefusals,
      },
      answer: async (request, reply) => {
        const { model, asked, wishes, terms } = readChatCompletionBody(request.body);
        return answer(
          request,
          reply,
          {
            endpoint: '/v1/chat/completions',
            idPrefix: 'chatcmpl',
            model,
            wishes,
            terms,
            prompts: [() => parts.generation.acceptChat(asked)],
            shape: chatShape,
          },
          parts,
        );
      },
    },
  ];
}
