/** /v1/batches: background work over an uploaded file; a tenant sees only its own. */
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Batches } from '../../batches/open-batches.ts';
import { invalidRequest } from '../../generation/request-error.ts';
import type { EndpointParts } from '../answer-endpoint.ts';
import { batchBody, batchSchema, listBody, listSchema, refusingBatches } from '../batch-shapes.ts';
import { expiresAfter } from '../expiry.ts';
import { pageOf, pageQuerySchema, readQuery } from '../page-query.ts';
import { parseStrictly, text } from '../parameters.ts';
import type { Route } from '../route.ts';

const DEFAULT_LIMIT = 20;
const MOST_LIMIT = 100;

const creation = z.strictObject({
  input_file_id: text.min(1).max(128),
  endpoint: z.enum(['/v1/chat/completions', '/v1/completions']),
  completion_window: z.literal('24h'),
  metadata: z
    .record(text.max(64), text.max(512))
    .refine((value) => Object.keys(value).length <= 16, { error: 'has more than 16 entries' })
    .nullish(),
  output_expires_after: expiresAfter.nullish(),
});
const query = pageQuerySchema(MOST_LIMIT, {});

const idOf = (request: { readonly params: unknown }): string =>
  (request.params as { batch_id: string }).batch_id;

export function batchRoutes({ callers }: EndpointParts, batches: Batches): readonly Route[] {
  const tenantOf = (request: FastifyRequest): string => callers.of(request.headers).tenant;
  return [
    {
      method: 'POST',
      path: '/v1/batches',
      doc: {
        summary: 'Run every line of an uploaded file in the gaps that other traffic leaves',
        body: creation,
        ok: { 'application/json': batchSchema },
        refusals: [503],
      },
      answer: (request) =>
        refusingBatches(async () => {
          const asked = parseStrictly(creation, request.body);
          const { tenant, keyId } = callers.of(request.headers);
          const expiry = asked.output_expires_after ?? null;
          const batch = await batches.create({
            tenant,
            keyId,
            endpoint: asked.endpoint,
            inputFileId: asked.input_file_id,
            metadata: asked.metadata ?? null,
            outputExpiresAfterMs: expiry === null ? null : expiry.seconds * 1000,
          });
          return batchBody(batch);
        }),
    },
    {
      method: 'GET',
      path: '/v1/batches',
      doc: {
        summary: 'Batches, the newest first',
        query,
        ok: { 'application/json': listSchema(batchSchema) },
        refusals: [],
      },
      answer: async (request) => {
        const page = pageOf(readQuery(query, request.query), DEFAULT_LIMIT);
        const { items, hasMore } = await batches.batches(tenantOf(request), page);
        return listBody(items.map(batchBody), hasMore);
      },
    },
    {
      method: 'GET',
      path: '/v1/batches/{batch_id}',
      doc: {
        summary: 'How far a batch has come',
        ok: { 'application/json': batchSchema },
        refusals: [404],
      },
      answer: (request) =>
        refusingBatches(async () => batchBody(await batches.batch(tenantOf(request), idOf(request)))),
    },
    {
      method: 'POST',
      path: '/v1/batches/{batch_id}/cancel',
      doc: {
        summary: 'End a batch; what is done by then is kept',
        ok: { 'application/json': batchSchema },
        refusals: [404, 409],
      },
      answer: (request) =>
        refusingBatches(async () => {
          if (
            typeof request.body === 'object' &&
            request.body !== null &&
            Object.keys(request.body).length > 0
          ) {
            throw invalidRequest('invalid_value', null, 'A cancellation takes no body.');
          }
          return batchBody(await batches.cancel(tenantOf(request), idOf(request)));
        }),
    },
  ];
}
