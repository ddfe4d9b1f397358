import type { SequenceSpec } from '@variator/scheduler/sequence';
import fc from 'fast-check';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { chatCompletion, textCompletion } from './routes/answer-doc.ts';
import { schemaValues } from './schema-values.fixture.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

interface Operation {
  readonly operationId: string;
  readonly requestBody?: { readonly content: Record<string, { readonly schema: object }> };
  readonly responses: Record<string, { readonly content: Record<string, unknown> }>;
}
interface Document {
  readonly openapi: string;
  readonly paths: Record<string, Record<string, Operation>>;
}

let served: Served;
let document: Document;
beforeAll(async () => {
  served = await serve((_spec: SequenceSpec) => ({ tokenIds: [437, 464, 261, 2] }));
  document = (await (await fetch(`${served.url}/openapi.json`)).json()) as Document;
});
afterAll(() => served.close());

const bodyOf = (path: string) =>
  document.paths[path]?.post?.requestBody?.content['application/json']?.schema as {
    properties: Record<string, unknown>;
    required: string[];
    additionalProperties: boolean;
  };

test('the document names every route, each with a name of its own and its refusals', () => {
  expect(document.openapi).toBe('3.1.0');
  const operations = Object.entries(document.paths).flatMap(([path, byMethod]) =>
    Object.entries(byMethod).map(([method, operation]) => ({ route: `${method} ${path}`, operation })),
  );
  for (const route of [
    'post /v1/chat/completions',
    'post /v1/completions',
    'get /v1/models',
    'get /v1/models/{model}',
    'post /tokenize',
    'post /detokenize',
    'get /health',
    'get /ready',
    'get /version',
    'get /metrics',
    'get /openapi.json',
  ]) {
    expect(operations.map((each) => each.route)).toContain(route);
  }
  expect(new Set(operations.map(({ operation }) => operation.operationId)).size).toBe(operations.length);
  for (const { operation } of operations) expect(operation.responses['200']).toBeDefined();
});

test('the body of a chat is described by the schema that parses it: limits, required keys, no others', () => {
  const body = bodyOf('/v1/chat/completions');
  expect(body.required).toEqual(['model', 'messages']);
  expect(body.additionalProperties).toBe(false);
  expect(body.properties.temperature).toEqual({
    anyOf: [{ type: 'number', minimum: 0, maximum: 2 }, { type: 'null' }],
  });
  expect(body.properties.tools).toEqual({
    anyOf: [{ type: 'array', items: false, maxItems: 0 }, { type: 'null' }],
  });
  expect(bodyOf('/v1/completions').required).toEqual(['model', 'prompt']);
});

test('every parameter that the document names is known to the parser', async () => {
  for (const path of ['/v1/chat/completions', '/v1/completions', '/tokenize']) {
    const nulls = Object.fromEntries(Object.keys(bodyOf(path).properties).map((key) => [key, null]));
    const own =
      path === '/v1/chat/completions'
        ? { messages: [{ role: 'user', content: 'Hi' }] }
        : { prompt: 'Hi', ...(path === '/tokenize' ? { messages: null } : {}) };
    const response = await served.post(path, {
      ...nulls,
      model: MODEL,
      ...own,
      ...(path === '/tokenize' ? {} : { max_tokens: 1 }),
    });
    expect({ path, status: response.status, body: await response.text() }).toMatchObject({ status: 200 });
  }
});

test('real answers have the shape that the document gives them', async () => {
  const chat = { model: MODEL, messages: [{ role: 'user', content: 'Hi' }], max_tokens: 2 };
  chatCompletion.parse(await (await served.post('/v1/chat/completions', chat)).json());
  const text = { model: MODEL, prompt: ['Hi', 'Ho'], max_tokens: 2 };
  textCompletion.parse(await (await served.post('/v1/completions', text)).json());
});

test('bodies made from the document, right and wrong ones, get documented statuses and no 5xx', async () => {
  const operations = Object.entries(document.paths).flatMap(([path, { post }]) => {
    const schema = post?.requestBody?.content['application/json']?.schema;
    return post === undefined || schema === undefined ? [] : [{ path, post, schema }];
  });
  expect(operations.length).toBeGreaterThanOrEqual(4);
  for (const { path, post, schema } of operations) {
    const answered: number[] = [];
    await fc.assert(
      fc.asyncProperty(schemaValues(schema), async (body) => {
        // The model's name is one of many strings; most of what is interesting lies behind it.
        const known =
          body !== null && typeof body === 'object' && 'model' in body ? { ...body, model: MODEL } : body;
        const response = await served.post(path, known);
        const answer = await response.text();
        answered.push(response.status);
        expect({
          body: known,
          status: response.status,
          isFault: response.status >= 500,
          answer,
        }).toMatchObject({
          isFault: false,
        });
        expect(Object.keys(post.responses)).toContain(String(response.status));
      }),
      { numRuns: 150, seed: 20_261_126 },
    );
    expect(answered.filter((status) => status >= 400).length).toBeGreaterThan(0);
  }
  expect(served.logged).toEqual([]);
}, 120_000);
