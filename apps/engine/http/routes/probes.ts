/** GET /health, /ready, /version: for load balancers, Kubernetes and people. None needs a key, none says who uses it. */
import { z } from 'zod';
import type { EndpointParts } from '../answer-endpoint.ts';
import type { Route } from '../route.ts';

export function probeRoutes(parts: EndpointParts): readonly Route[] {
  return [
    {
      method: 'GET',
      path: '/health',
      isOpen: true,
      doc: {
        summary: 'Whether the gateway process answers; restart it when it does not',
        ok: { 'application/json': z.object({ status: z.literal('ok') }) },
        refusals: [],
      },
      answer: async () => ({ status: 'ok' }),
    },
    {
      method: 'GET',
      path: '/ready',
      isOpen: true,
      doc: {
        summary: 'Whether requests are taken and work advances; route elsewhere while it is 503',
        ok: { 'application/json': z.object({ status: z.literal('ready') }) },
        unready: z.object({ status: z.literal('unready'), reason: z.string() }),
        refusals: [503],
      },
      answer: async (_request, reply) => {
        const reason = parts.unreadyReason() || parts.stalledReason();
        if (reason === '') return { status: 'ready' };
        return reply.status(503).header('retry-after', '1').send({ status: 'unready', reason });
      },
    },
    {
      method: 'GET',
      path: '/version',
      isOpen: true,
      doc: {
        summary: 'The version of this server',
        ok: { 'application/json': z.object({ version: z.string() }) },
        refusals: [],
      },
      answer: async () => ({ version: parts.version }),
    },
  ];
}
