/** /v1/files: uploads for batches and what batches made; a tenant sees only its own. */
import type { FastifyRequest } from 'fastify';
import { z } from 'zod';
import type { Batches } from '../../batches/open-batches.ts';
import type { EndpointParts } from '../answer-endpoint.ts';
import { fileBody, fileSchema, listBody, listSchema, refusingBatches } from '../batch-shapes.ts';
import { expiresAfter } from '../expiry.ts';
import { receiveUpload } from '../file-upload.ts';
import { pageOf, pageQuerySchema, readQuery } from '../page-query.ts';
import type { Route } from '../route.ts';

const DEFAULT_LIMIT = 10_000;

const upload = z.object({
  file: z.string().meta({ format: 'binary' }),
  purpose: z.literal('batch'),
  expires_after: expiresAfter.optional(),
});
const query = pageQuerySchema(DEFAULT_LIMIT, { purpose: z.enum(['batch', 'batch_output']).optional() });
const deleted = z.object({ id: z.string(), object: z.literal('file'), deleted: z.literal(true) });

const idOf = (request: { readonly params: unknown }): string =>
  (request.params as { file_id: string }).file_id;

export function fileRoutes({ callers }: EndpointParts, batches: Batches): readonly Route[] {
  const tenantOf = (request: FastifyRequest): string => callers.of(request.headers).tenant;
  return [
    {
      method: 'POST',
      path: '/v1/files',
      doc: {
        summary: 'Upload the input of a batch',
        body: upload,
        bodyType: 'multipart/form-data',
        ok: { 'application/json': fileSchema },
        refusals: [413, 507],
      },
      answer: (request, reply) =>
        refusingBatches(async () =>
          fileBody(await receiveUpload(request, reply, batches, tenantOf(request))),
        ),
    },
    {
      method: 'GET',
      path: '/v1/files',
      doc: {
        summary: 'Files, the newest first',
        query,
        ok: { 'application/json': listSchema(fileSchema) },
        refusals: [],
      },
      answer: async (request) => {
        const parsed = readQuery(query, request.query);
        const page = pageOf(parsed, DEFAULT_LIMIT);
        const { items, hasMore } = await batches.files(tenantOf(request), parsed.purpose ?? null, page);
        return listBody(items.map(fileBody), hasMore);
      },
    },
    {
      method: 'GET',
      path: '/v1/files/{file_id}',
      doc: { summary: 'One file', ok: { 'application/json': fileSchema }, refusals: [404] },
      answer: (request) =>
        refusingBatches(async () => fileBody(await batches.file(tenantOf(request), idOf(request)))),
    },
    {
      method: 'GET',
      path: '/v1/files/{file_id}/content',
      doc: {
        summary: 'What is in a file',
        ok: { 'application/octet-stream': z.string().meta({ format: 'binary' }) },
        refusals: [404],
      },
      answer: (request, reply) =>
        refusingBatches(async () => {
          const { file, bytes } = await batches.content(tenantOf(request), idOf(request));
          const name = encodeURIComponent(file.filename).replace(/['()*]/g, '_');
          return reply
            .type('application/octet-stream')
            .header('content-length', file.bytes)
            .header('content-disposition', `attachment; filename*=UTF-8''${name}`)
            .send(bytes);
        }),
    },
    {
      method: 'DELETE',
      path: '/v1/files/{file_id}',
      doc: { summary: 'Delete a file', ok: { 'application/json': deleted }, refusals: [404, 409] },
      answer: (request): Promise<z.infer<typeof deleted>> =>
        refusingBatches(async () => {
          await batches.deleteFile(tenantOf(request), idOf(request));
          return { id: idOf(request), object: 'file', deleted: true };
        }),
    },
  ];
}
