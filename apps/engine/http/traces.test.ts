import { createServer, type Server } from 'node:http';
import type { AddressInfo } from 'node:net';
import { afterEach, expect, test } from 'vitest';
import { openTraces, type Traces } from '../telemetry/traces.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';

interface Span {
  readonly name: string;
  readonly traceId: string;
  readonly parentSpanId?: string;
  readonly kind: number;
  readonly attributes: readonly { readonly key: string; readonly value: Record<string, unknown> }[];
  readonly status: { readonly code?: number };
}

const ends: (() => Promise<void>)[] = [];
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end();
});

async function collector(): Promise<{ url: string; bodies: string[]; spans: () => Span[] }> {
  const bodies: string[] = [];
  const server: Server = createServer((request, response) => {
    let body = '';
    request.on('data', (chunk) => {
      body += chunk;
    });
    request.on('end', () => {
      bodies.push(body);
      response.writeHead(200, { 'content-type': 'application/json' }).end('{}');
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  ends.push(
    () =>
      new Promise((resolve) => {
        server.closeAllConnections();
        server.close(() => resolve());
      }),
  );
  const spans = () =>
    bodies.flatMap((body) =>
      (JSON.parse(body) as { resourceSpans: { scopeSpans: { spans: Span[] }[] }[] }).resourceSpans.flatMap(
        ({ scopeSpans }) => scopeSpans.flatMap((scope) => scope.spans),
      ),
    );
  return { url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`, bodies, spans };
}

async function traced(endpoint: string): Promise<{ served: Served; traces: Traces }> {
  const traces = await openTraces({ endpoint, modelName: MODEL, version: '1.2.3' });
  const served = await serve(
    (spec) => ({ tokenIds: [437, 464, 261], ...(spec.maxTokens === 7 ? { failAt: 3 } : {}) }),
    {
      traces,
    },
  );
  ends.push(() => served.close());
  return { served, traces };
}
const attribute = (span: Span | undefined, key: string): unknown =>
  Object.values(span?.attributes.find((each) => each.key === key)?.value ?? {})[0];

test('each request is one server span with the GenAI names, in the trace of its caller, without its text', async () => {
  const { url, bodies, spans } = await collector();
  const { served, traces } = await traced(url);
  const traceId = '4bf92f3577b34da6a3ce929d0e0e4736';
  const headers = { traceparent: `00-${traceId}-00f067aa0ba902b7-01` };
  const messages = [{ role: 'user', content: 'the canary sings' }];
  for (const stream of [false, true]) {
    const body = { model: MODEL, messages, max_tokens: 4, stream, user: 'ann' };
    await (await served.post('/v1/chat/completions', body, headers)).text();
  }
  await (await served.post('/v1/completions', { model: MODEL, prompt: ['a', 'b'], max_tokens: 3 })).text();
  await (
    await served.post('/v1/completions', { model: MODEL, prompt: 'a', max_tokens: 7, stream: true })
  ).text();
  expect((await served.post('/v1/completions', { model: 'other', prompt: 'a' })).status).toBe(404);
  expect((await served.post('/v1/completions', '{')).status).toBe(400);
  await fetch(`${served.url}/health`);
  await traces.close();
  const found = spans();
  expect(found.map(({ name }) => name)).toEqual([
    `chat ${MODEL}`,
    `chat ${MODEL}`,
    `text_completion ${MODEL}`,
    `text_completion ${MODEL}`,
    'text_completion other',
    'text_completion',
  ]);
  for (const span of found.slice(0, 2)) {
    expect(span).toMatchObject({ traceId, parentSpanId: '00f067aa0ba902b7', kind: 2 });
    expect(attribute(span, 'gen_ai.operation.name')).toBe('chat');
    expect(attribute(span, 'gen_ai.provider.name')).toBe('variator');
    expect(attribute(span, 'gen_ai.request.model')).toBe(MODEL);
    expect(attribute(span, 'gen_ai.response.model')).toBe(MODEL);
    expect(attribute(span, 'gen_ai.usage.output_tokens')).toBe(4);
    expect(attribute(span, 'gen_ai.usage.input_tokens')).toBe(served.rows[0]?.promptTokenCount);
    expect(JSON.stringify(attribute(span, 'gen_ai.response.finish_reasons'))).toContain('length');
    expect(Number(attribute(span, 'gen_ai.response.time_to_first_chunk'))).toBeGreaterThan(0);
    expect(attribute(span, 'error.type')).toBeUndefined();
  }
  expect(attribute(found[2], 'gen_ai.usage.output_tokens')).toBe(6);
  expect(found.slice(3).map((span) => attribute(span, 'error.type'))).toEqual([
    'server_error',
    'model_not_found',
    'invalid_json',
  ]);
  expect(bodies.join('')).not.toContain('canary');
});

test('a collector that is gone, or answers nothing, costs a request nothing', async () => {
  const silent = createServer(() => {
    // Never answers.
  });
  await new Promise<void>((resolve) => silent.listen(0, '127.0.0.1', resolve));
  ends.push(
    () =>
      new Promise((resolve) => {
        silent.closeAllConnections();
        silent.close(() => resolve());
      }),
  );
  for (const url of ['http://127.0.0.1:9', `http://127.0.0.1:${(silent.address() as AddressInfo).port}`]) {
    const { served, traces } = await traced(url);
    const body = { model: MODEL, prompt: 'a', max_tokens: 1 };
    for (let count = 0; count < 300; count += 1) {
      expect((await served.post('/v1/completions', body)).status).toBe(200);
    }
    await traces.close();
    expect(served.logged).toEqual([]);
  }
});
