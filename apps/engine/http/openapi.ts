/**
 * The OpenAPI 3.1 document, made from the routes and the very schemas that parse their bodies, so that it cannot say
 * anything else than the server does. Pure; served by routes/openapi.ts.
 */
import { z } from 'zod';
import type { Route } from './route.ts';

const errorSchema = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    param: z.string().nullable(),
    code: z.string(),
  }),
});

const refusalWords: Readonly<Record<number, string>> = {
  400: 'The request cannot be honoured; the message tells what to change',
  401: 'A key is needed, or is not correct',
  404: 'There is no such thing here',
  405: 'The path takes another method',
  408: 'The request took too long to arrive, or to be answered',
  409: 'It is in use',
  413: 'The body is too large',
  415: 'The body is of another content type',
  429: 'Too much waits already; try again after retry-after',
  500: 'The server failed',
  503: 'Nobody can take it now; try again after retry-after',
  507: 'No room is left for files',
};

type Json = Record<string, unknown>;

const schemaOf = (schema: z.ZodType, io: 'input' | 'output'): Json => {
  const { $schema: _dialect, ...rest } = z.toJSONSchema(schema, {
    io,
    unrepresentable: 'any',
    override: ({ jsonSchema }) => {
      // The dialect wants at least one; a list of none says it by its length.
      if (jsonSchema.prefixItems?.length === 0) delete jsonSchema.prefixItems;
    },
  });
  return rest;
};

export function openApiDocument(
  routes: readonly Route[],
  { version, servedModelNames }: { readonly version: string; readonly servedModelNames: readonly string[] },
): Json {
  const paths: Record<string, Json> = {};
  for (const route of routes) {
    paths[route.path] = {
      ...paths[route.path],
      [route.method.toLowerCase()]: operation(route, servedModelNames),
    };
  }
  return {
    openapi: '3.1.0',
    info: {
      title: 'Variator',
      version,
      description:
        'An OpenAI-compatible inference endpoint. A parameter that is not listed is refused by name.',
    },
    paths,
    components: {
      schemas: { Error: schemaOf(errorSchema, 'output') },
      securitySchemes: { key: { type: 'http', scheme: 'bearer' } },
    },
  };
}

function operation(route: Route, servedModelNames: readonly string[]): Json {
  const { doc } = route;
  const statuses = new Set([
    ...doc.refusals,
    ...(route.isOpen === true ? [] : [401]),
    ...(doc.body === undefined ? [] : [400, 408, 413, 415]),
    ...(doc.query === undefined && !route.path.includes('{') ? [] : [400]),
    500,
  ]);
  const refusals = [...statuses]
    .sort((a, b) => a - b)
    .map((status) => [String(status), refusal(status, doc.unready)]);
  return {
    operationId: `${route.method.toLowerCase()}${route.path.replace(/[^a-zA-Z0-9]+(\w|$)/g, (_, next: string) => next.toUpperCase())}`,
    summary: doc.summary,
    security: route.isOpen === true ? [] : [{}, { key: [] }],
    parameters: [...pathParameters(route.path), ...queryParameters(doc.query)],
    ...(doc.body === undefined
      ? {}
      : {
          requestBody: {
            required: true,
            content: { [doc.bodyType ?? 'application/json']: { schema: bodyOf(doc.body, servedModelNames) } },
          },
        }),
    responses: {
      '200': { description: 'OK', content: content(doc.ok) },
      ...Object.fromEntries(refusals),
    },
  };
}

/** Every other name is a 404. */
function bodyOf(body: z.ZodType, servedModelNames: readonly string[]): Json {
  const schema = schemaOf(body, 'input');
  const properties = schema.properties as Json | undefined;
  if (properties?.model === undefined) return schema;
  return { ...schema, properties: { ...properties, model: { type: 'string', enum: servedModelNames } } };
}

const content = (byType: Readonly<Record<string, z.ZodType>>): Json =>
  Object.fromEntries(
    Object.entries(byType).map(([type, schema]) => [type, { schema: schemaOf(schema, 'output') }]),
  );

const refusal = (status: number, unready: z.ZodType | undefined): Json => ({
  description: refusalWords[status] ?? 'Refused',
  content: {
    'application/json': {
      schema:
        status === 503 && unready !== undefined
          ? schemaOf(unready, 'output')
          : { $ref: '#/components/schemas/Error' },
    },
  },
});

const pathParameters = (path: string): readonly Json[] =>
  [...path.matchAll(/\{(\w+)\}/g)].map(([, name]) => ({
    name,
    in: 'path',
    required: true,
    schema: { type: 'string', minLength: 1 },
  }));

function queryParameters(query: z.ZodObject | undefined): readonly Json[] {
  if (query === undefined) return [];
  const { properties = {}, required = [] } = schemaOf(query, 'output') as {
    properties?: Record<string, unknown>;
    required?: readonly string[];
  };
  return Object.entries(properties).map(([name, schema]) => ({
    name,
    in: 'query',
    required: required.includes(name),
    schema,
  }));
}
