/** GET /metrics: Prometheus' exposition format, without a key as vLLM's; telemetry/metrics.ts says what is in it. */
import { z } from 'zod';
import type { EndpointParts } from '../answer-endpoint.ts';
import type { Route } from '../route.ts';

export function metricsRoutes({ metrics }: EndpointParts): readonly Route[] {
  return [
    {
      method: 'GET',
      path: '/metrics',
      isOpen: true,
      doc: {
        summary: "Metrics under vLLM's names and our own",
        ok: { 'text/plain': z.string() },
        refusals: [],
      },
      answer: async (_request, reply) => reply.type(metrics.contentType).send(await metrics.text()),
    },
  ];
}
