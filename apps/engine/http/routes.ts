/** Every route of the inference endpoint, in the order of the OpenAPI document. A new one is a file and a line here. */
import type { Batches } from '../batches/open-batches.ts';
import type { EndpointParts } from './answer-endpoint.ts';
import type { Route } from './route.ts';
import { batchRoutes } from './routes/batches.ts';
import { chatCompletionRoutes } from './routes/chat-completions.ts';
import { completionRoutes } from './routes/completions.ts';
import { fileRoutes } from './routes/files.ts';
import { metricsRoutes } from './routes/metrics.ts';
import { modelRoutes } from './routes/models.ts';
import { openApiRoute } from './routes/openapi.ts';
import { probeRoutes } from './routes/probes.ts';
import { tokenizeRoutes } from './routes/tokenize.ts';

/** @param batches null: files and batches are not served */
export function inferenceRoutes(parts: EndpointParts, batches: Batches | null): readonly Route[] {
  const routes = [
    ...chatCompletionRoutes(parts),
    ...completionRoutes(parts),
    ...(batches === null ? [] : [...fileRoutes(parts, batches), ...batchRoutes(parts, batches)]),
    ...modelRoutes(parts),
    ...tokenizeRoutes(parts),
    ...probeRoutes(parts),
    ...metricsRoutes(parts),
  ];
  return [...routes, openApiRoute(routes, parts)];
}
