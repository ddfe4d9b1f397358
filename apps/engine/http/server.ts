/**
 * The inference endpoint: Fastify, its routes, limits and errors. main.ts builds one, listens, drains and closes it. Only
 * this file knows Fastify's own errors and hooks; what a request means is decided below it, in generation/.
 */
import { randomUUID } from 'node:crypto';
import type { Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Objectives } from '@variator/scheduler/sequence';
import Fastify, { type FastifyInstance } from 'fastify';
import type { Fleet } from '../fleet/fleet.ts';
import type { Generation } from '../generation/generation.ts';
import { RequestError } from '../generation/request-error.ts';
import { Admission } from './admission.ts';
import { answer, type EndpointParts } from './answer-endpoint.ts';
import type { RequestRecorder } from './answer-run.ts';
import { chatShape, completionShape } from './answer-shapes.ts';
import { checkApiKey } from './api-key.ts';
import { readChatCompletionBody } from './chat-completion-body.ts';
import { readCompletionBody } from './completion-body.ts';
import { asRequestError, errorBody, retryHeaders, serverError } from './error-body.ts';
import { readJson } from './read-json.ts';

export interface InferenceLimits {
  readonly maxBodyBytes: number;
  /** Sequences inside at once, running or waiting. */
  readonly maxSequenceCount: number;
  readonly maxPromptTokenCount: number;
  /** Of one stream, before its reader is waited for. */
  readonly maxUnsentBytes: number;
  readonly slowReaderLimitMs: number;
  readonly maxConnectionCount: number;
}

export const defaultInferenceLimits: InferenceLimits = {
  maxBodyBytes: 2 * 1024 * 1024,
  maxSequenceCount: 256,
  maxPromptTokenCount: 1_000_000,
  maxUnsentBytes: 1024 * 1024,
  slowReaderLimitMs: 60_000,
  maxConnectionCount: 4096,
};

export interface InferenceServerOptions {
  readonly generation: Generation;
  readonly fleet: Fleet;
  readonly recorder: RequestRecorder;
  readonly objectives: () => Objectives;
  readonly limits?: Partial<InferenceLimits>;
  /** null: no key is asked for. */
  readonly apiKey: string | null;
  /** Epoch milliseconds. */
  readonly now: () => number;
  /** Faults of ours, for people. */
  readonly log: (line: string) => void;
}

export interface InferenceServer {
  /** @throws Error of Node's, e.g. with code EADDRINUSE */
  listen(at: {
    readonly host: string;
    readonly port: number;
  }): Promise<{ readonly port: number; readonly url: string }>;
  /** Refuses new requests; resolves when those inside have ended or the deadline has passed. */
  drain(deadlineMs: number): Promise<{ readonly leftCount: number }>;
  /** Ends all connections, which cancels what still runs, and waits for its rows. */
  close(): Promise<void>;
  /** Requests refused or failed since the start, by error code. */
  refusedCounts(): Readonly<Record<string, number>>;
}

const methodsByPath: Readonly<Record<string, string>> = {
  '/v1/chat/completions': 'POST',
  '/v1/completions': 'POST',
  '/v1/models': 'GET, HEAD',
  '/health': 'GET, HEAD',
  '/ready': 'GET, HEAD',
};
/** How long close() waits for the accounts of cancelled sequences. */
const LAST_ACCOUNTS_MS = 5000;

export function createInferenceServer(options: InferenceServerOptions): InferenceServer {
  const limits = { ...defaultInferenceLimits, ...options.limits };
  const { generation, fleet, now, log } = options;
  const admission = new Admission(limits);
  const refusedCounts = new Map<string, number>();
  let isDraining = false;

  const unreadyReason = (): string => {
    if (isDraining) return 'it is shutting down.';
    return fleet.canServe() ? '' : fleet.unreadyReason() || 'no worker is ready.';
  };
  const refusalReason = (): string => {
    if (isDraining) return 'it is shutting down.';
    return fleet.canTake() ? '' : fleet.unreadyReason() || 'no worker is ready.';
  };
  const parts: EndpointParts = {
    generation,
    fleet,
    recorder: options.recorder,
    admission,
    sseLimits: limits,
    objectives: options.objectives,
    tenant: 'default',
    now,
    unreadyReason,
    refusalReason,
  };

  const app = Fastify({
    logger: false,
    bodyLimit: limits.maxBodyBytes,
    genReqId: () => `req_${randomUUID().replaceAll('-', '')}`,
    requestTimeout: 30_000,
    keepAliveTimeout: 65_000,
    forceCloseConnections: true,
    return503OnClosing: false,
    http: { headersTimeout: 10_000, connectionsCheckingInterval: 1000 },
    clientErrorHandler: (error, socket) => answerBrokenHttp(error, socket),
  });
  app.server.maxConnections = limits.maxConnectionCount;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (_request: unknown, body: Buffer) => readJson(body),
  );
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    if (isDraining) reply.header('connection', 'close');
    if (request.is404) throw notFound(request.method, request.url);
    if (request.url.startsWith('/v1/')) checkApiKey(options.apiKey, request.headers.authorization);
  });
  app.setErrorHandler((error, request, reply) => {
    const known = asRequestError(error);
    if (known === null) {
      log(`request ${request.id} failed: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
    }
    const refused = known ?? serverError('The server failed to answer this request.');
    refusedCounts.set(refused.code, (refusedCounts.get(refused.code) ?? 0) + 1);
    return reply.status(refused.status).headers(retryHeaders(refused)).send(errorBody(refused));
  });
  addRoutes(app, parts);

  return {
    async listen({ host, port }) {
      const url = await app.listen({ host, port });
      const address = app.server.address();
      return { url, port: typeof address === 'object' && address !== null ? address.port : port };
    },
    async drain(deadlineMs) {
      isDraining = true;
      await Promise.race([admission.whenEmpty(), sleep(deadlineMs, undefined, { ref: false })]);
      return { leftCount: admission.permitCount };
    },
    async close() {
      isDraining = true;
      await app.close();
      await Promise.race([admission.whenEmpty(), sleep(LAST_ACCOUNTS_MS, undefined, { ref: false })]);
    },
    refusedCounts: () => Object.fromEntries(refusedCounts),
  };
}

function addRoutes(app: FastifyInstance, parts: EndpointParts): void {
  const { generation } = parts;
  const model = {
    id: generation.modelId,
    object: 'model',
    created: Math.floor(parts.now() / 1000),
    owned_by: 'variator',
    max_model_len: generation.maxModelLenTokens,
  };
  app.get('/health', async () => ({ status: 'ok' }));
  app.get('/ready', async (_request, reply) => {
    const reason = parts.unreadyReason();
    if (reason === '') return { status: 'ready' };
    return reply.status(503).header('retry-after', '1').send({ status: 'unready', reason });
  });
  app.get('/v1/models', async () => ({ object: 'list', data: [model] }));
  app.get<{ Params: { '*': string } }>('/v1/models/*', async (request) => {
    const asked = request.params['*'];
    if (asked === model.id) return model;
    throw refusal(404, 'model_not_found', `The model "${asked.slice(0, 128)}" does not exist here.`);
  });
  app.post('/v1/chat/completions', async (request, reply) => {
    const { model: asked, asked: chat, wishes, session } = readChatCompletionBody(request.body);
    return answer(
      request,
      reply,
      {
        endpoint: '/v1/chat/completions',
        idPrefix: 'chatcmpl',
        model: asked,
        wishes,
        session,
        prompts: [() => generation.acceptChat(chat)],
        shape: chatShape,
      },
      parts,
    );
  });
  app.post('/v1/completions', async (request, reply) => {
    const { model: asked, asked: completions, wishes, session } = readCompletionBody(request.body);
    return answer(
      request,
      reply,
      {
        endpoint: '/v1/completions',
        idPrefix: 'cmpl',
        model: asked,
        wishes,
        session,
        prompts: completions.map((each) => () => generation.acceptCompletion(each)),
        shape: completionShape,
      },
      parts,
    );
  });
}

/** Before the body is read, which nobody asked for. */
function notFound(method: string, url: string): RequestError {
  const path = url.split('?')[0] ?? '';
  const allowed = Object.hasOwn(methodsByPath, path) ? methodsByPath[path] : undefined;
  return allowed === undefined
    ? refusal(404, 'unknown_url', `Unknown request URL: ${method} ${path.slice(0, 128)}.`)
    : refusal(405, 'method_not_allowed', `${path} takes ${allowed}, not ${method}.`);
}

const refusal = (status: number, code: string, message: string): RequestError =>
  new RequestError({ status, type: 'invalid_request_error', code, message });

/** What is not HTTP at all still gets the error shape, and its connection is closed. */
function answerBrokenHttp(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const [line, message] =
    error.code === 'HPE_HEADER_OVERFLOW'
      ? ['431 Request Header Fields Too Large', 'The headers are too large.']
      : error.code === 'ERR_HTTP_REQUEST_TIMEOUT'
        ? ['408 Request Timeout', 'The request took too long to arrive.']
        : ['400 Bad Request', 'The request is not valid HTTP.'];
  const body = JSON.stringify(
    errorBody(
      new RequestError({ status: 400, type: 'invalid_request_error', code: 'invalid_request', message }),
    ),
  );
  socket.end(
    `HTTP/1.1 ${line}\r\ncontent-type: application/json\r\ncontent-length: ${Buffer.byteLength(body)}\r\nx-request-id: req_${randomUUID().replaceAll('-', '')}\r\nconnection: close\r\n\r\n${body}`,
  );
}
