/** GET /v1/models and /v1/models/{model}: the one model, under each of its served names. */
import { z } from 'zod';
import type { EndpointParts } from '../answer-endpoint.ts';
import type { Route } from '../route.ts';
import { unknownModel } from '../served-model.ts';

const model = z.object({
  id: z.string(),
  object: z.literal('model'),
  created: z.int(),
  owned_by: z.string(),
  /** The name that answers report. */
  root: z.string(),
  parent: z.null(),
  max_model_len: z.int(),
});

export function modelRoutes(parts: EndpointParts): readonly Route[] {
  const { servedModelNames, generation } = parts;
  const created = Math.floor(parts.now() / 1000);
  const models = servedModelNames.map(
    (id): z.infer<typeof model> => ({
      id,
      object: 'model',
      created,
      owned_by: 'variator',
      root: servedModelNames[0] ?? id,
      parent: null,
      max_model_len: generation.maxModelLenTokens,
    }),
  );
  return [
    {
      method: 'GET',
      path: '/v1/models',
      doc: {
        summary: 'The models served here',
        ok: { 'application/json': z.object({ object: z.literal('list'), data: z.array(model) }) },
        refusals: [],
      },
      answer: async () => ({ object: 'list', data: models }),
    },
    {
      method: 'GET',
      path: '/v1/models/{model}',
      // A name may hold slashes.
      pattern: '/v1/models/*',
      doc: { summary: 'One model', ok: { 'application/json': model }, refusals: [404] },
      answer: async (request) => {
        const asked = (request.params as { '*': string })['*'];
        const found = models.find(({ id }) => id === asked);
        if (found === undefined) throw unknownModel(asked, servedModelNames);
        return found;
      },
    },
  ];
}
