/** GET /openapi.json: the description of every route, this one included. */
import { z } from 'zod';
import type { EndpointParts } from '../answer-endpoint.ts';
import { openApiDocument } from '../openapi.ts';
import type { Route } from '../route.ts';

export function openApiRoute(described: readonly Route[], parts: EndpointParts): Route {
  const route: Route = {
    method: 'GET',
    path: '/openapi.json',
    isOpen: true,
    doc: {
      summary: 'This document',
      ok: { 'application/json': z.looseObject({ openapi: z.literal('3.1.0') }) },
      refusals: [],
    },
    answer: async () => document,
  };
  const document = openApiDocument([...described, route], parts);
  return route;
}
