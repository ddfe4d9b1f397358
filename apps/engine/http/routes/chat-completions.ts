/** POST /v1/chat/completions. */
import { answer, type EndpointParts } from '../answer-endpoint.ts';
import { askedChat } from '../asked-answers.ts';
import { chatCompletionSchema } from '../chat-completion-body.ts';
import type { Route } from '../route.ts';
import { answerRefusals, chatCompletion, eventStream } from './answer-doc.ts';

export function chatCompletionRoutes(parts: EndpointParts): readonly Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/chat/completions',
      operation: 'chat',
      doc: {
        summary: 'An answer to messages, whole or streamed',
        body: chatCompletionSchema,
        ok: { 'application/json': chatCompletion, 'text/event-stream': eventStream },
        refusals: answerRefusals,
      },
      answer: async (request, reply) =>
        answer(request, reply, askedChat(request.body, parts.generation), parts),
    },
  ];
}
