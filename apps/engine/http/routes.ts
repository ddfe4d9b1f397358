/** Every route of the inference endpoint, in the order of the OpenAPI document. A new one is a file and a line here. */
import type { EndpointParts } from './answer-endpoint.ts';
import type { Route } from './route.ts';
import { chatCompletionRoutes } from './routes/chat-completions.ts';
import { completionRoutes } from './routes/completions.ts';
import { modelRoutes } from './routes/models.ts';
import { probeRoutes } from './routes/probes.ts';
import { tokenizeRoutes } from './routes/tokenize.ts';

export function inferenceRoutes(parts: EndpointParts): readonly Route[] {
  return [
    ...chatCompletionRoutes(parts),
    ...completionRoutes(parts),
    ...modelRoutes(parts),
    ...tokenizeRoutes(parts),
    ...probeRoutes(parts),
  ];
}
