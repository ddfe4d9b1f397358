/** POST /v1/completions. */
import { answer, type EndpointParts } from '../answer-endpoint.ts';
import { askedCompletion } from '../asked-answers.ts';
import { completionSchema } from '../completion-body.ts';
import type { Route } from '../route.ts';
import { answerRefusals, eventStream, textCompletion } from './answer-doc.ts';

export function completionRoutes(parts: EndpointParts): readonly Route[] {
  return [
    {
      method: 'POST',
      path: '/v1/completions',
      operation: 'text_completion',
      doc: {
        summary: 'The continuation of one prompt or several, whole or streamed',
        body: completionSchema,
        ok: { 'application/json': textCompletion, 'text/event-stream': eventStream },
        refusals: answerRefusals,
      },
      answer: async (request, reply) =>
        answer(request, reply, askedCompletion(request.body, parts.generation), parts),
    },
  ];
}
