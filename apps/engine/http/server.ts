/**
 * The inference endpoint: Fastify, its routes, limits and errors. main.ts builds one, listens, drains and closes it. Only
 * this file knows Fastify's own errors and hooks; what a request means is decided below it, in generation/.
 */
import { setTimeout as sleep } from 'node:timers/promises';
import multipart from '@fastify/multipart';
import type { Objectives } from '@variator/scheduler/sequence';
import Fastify, { type FastifyInstance, type FastifyReply, type FastifyRequest } from 'fastify';
import type { LineRoad } from '../batches/line-road.ts';
import type { Batches } from '../batches/open-batches.ts';
import type { Fleet } from '../fleet/fleet.ts';
import type { Generation } from '../generation/generation.ts';
import { RequestError } from '../generation/request-error.ts';
import type { Metrics } from '../telemetry/metrics.ts';
import type { RequestSpan, Traces } from '../telemetry/traces.ts';
import { Admission, type AdmissionLimits } from './admission.ts';
import type { EndpointParts } from './answer-endpoint.ts';
import { answerHeaders, requestIdOf } from './answer-headers.ts';
import type { RequestRecorder } from './answer-run.ts';
import { Callers, type NamedKey } from './api-key.ts';
import { batchLines } from './batch-lines.ts';
import { limitBodyTime } from './body-time.ts';
import { answerBrokenHttp } from './broken-http.ts';
import { asRequestError, errorBody, retryHeaders, serverError } from './error-body.ts';
import { readJson } from './read-json.ts';
import { type Refusable, RefusalRows } from './refusal-rows.ts';
import { RequestHistory } from './request-history.ts';
import { type Route, routerPattern } from './route.ts';
import { inferenceRoutes } from './routes.ts';

export interface InferenceLimits extends AdmissionLimits {
  readonly maxBodyBytes: number;
  /** Longest a request may take; null: no limit. */
  readonly requestTimeoutMs: number | null;
  /** Of one stream, before its reader is waited for. */
  readonly maxUnsentBytes: number;
  readonly slowReaderLimitMs: number;
  readonly maxConnectionCount: number;
  /** From the head of a request to the end of its body; an upload may take long on a slow line. */
  readonly bodyTimeLimitMs: number;
  readonly uploadTimeLimitMs: number;
}

export const defaultInferenceLimits: InferenceLimits = {
  maxBodyBytes: 2 * 1024 * 1024,
  maxSequenceCount: 4096,
  maxQueuedRequestCount: 256,
  maxQueuedTokenCount: 1_000_000,
  tenantQueueShare: 0.5,
  maxQueueWaitMs: null,
  requestTimeoutMs: null,
  maxUnsentBytes: 256 * 1024,
  slowReaderLimitMs: 60_000,
  maxConnectionCount: 4096,
  bodyTimeLimitMs: 30_000,
  uploadTimeLimitMs: 900_000,
};

export interface InferenceServerOptions {
  readonly generation: Generation;
  readonly fleet: Fleet;
  readonly recorder: RequestRecorder;
  readonly metrics: Metrics;
  /** null: no collector is configured. */
  readonly traces?: Traces | null;
  readonly objectives: () => Objectives;
  readonly limits?: Partial<InferenceLimits>;
  /** Files and batches are served where it is given. */
  readonly batches?: Batches;
  /** What clients call the model; the model's own id where none is given. */
  readonly servedModelNames?: readonly string[];
  readonly version: string;
  /** Which workers have work and make no steps; '' while one advances. */
  readonly stalledReason?: () => string;
  /** Empty: no key is asked for. */
  readonly apiKeys: readonly NamedKey[];
  readonly isTenantHeaderTrusted: boolean;
  /** Salts the prefix cache of every tenant. */
  readonly tenantSecret: Buffer;
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
  /** How lines of batches are answered. */
  readonly lines: LineRoad;
}

declare module 'fastify' {
  interface FastifyRequest {
    /** null where it is not traced. */
    span: RequestSpan | null;
    /** null where a refusal has no row: the caller is not known, nothing is generated, or its sequences have rows. */
    refusable: Refusable | null;
  }
  interface FastifyContextConfig {
    operation?: 'chat' | 'text_completion' | undefined;
    isOpen?: boolean;
    /** Its body is long, and read as it comes. */
    isUpload?: boolean;
    /** Where the method is not one of the path's: those that are. */
    allowed?: string;
  }
}

const CUT_OFF = 'The connection was closed before the body was complete.';
const UPLOAD_TYPE = 'multipart/form-data';
const routerMethods = ['DELETE', 'GET', 'OPTIONS', 'PATCH', 'POST', 'PUT', 'TRACE'] as const;
/** How long close() waits for the accounts of cancelled sequences. */
const LAST_ACCOUNTS_MS = 5000;

export function createInferenceServer(options: InferenceServerOptions): InferenceServer {
  const limits = { ...defaultInferenceLimits, ...options.limits };
  const { generation, fleet, metrics, now, log } = options;
  const callers = new Callers(options);
  const tenantQueueShare = callers.canTellTenants ? limits.tenantQueueShare : 1;
  const admission = new Admission({ ...limits, tenantQueueShare }, now);
  const refusalRows = new RefusalRows({
    modelId: generation.modelId,
    record: options.recorder.refused,
    skipped: metrics.refusalRowSkipped,
  });
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
    metrics,
    admission,
    sseLimits: limits,
    objectives: options.objectives,
    callers,
    history: new RequestHistory(),
    requestTimeoutMs: limits.requestTimeoutMs,
    maxQueueWaitMs: limits.maxQueueWaitMs,
    now,
    servedModelNames: options.servedModelNames ?? [generation.modelId],
    version: options.version,
    unreadyReason,
    refusalReason,
    stalledReason: options.stalledReason ?? (() => ''),
  };

  const app = Fastify({
    logger: false,
    bodyLimit: limits.maxBodyBytes,
    genReqId: requestIdOf,
    requestTimeout: limits.uploadTimeLimitMs,
    keepAliveTimeout: 65_000,
    forceCloseConnections: true,
    return503OnClosing: false,
    // Node would refuse a request without a host in a shape of its own.
    http: { headersTimeout: 10_000, connectionsCheckingInterval: 1000, requireHostHeader: false },
    frameworkErrors: (error, request, reply) => {
      const refused = asRequestError(error) ?? refusal(400, 'invalid_request', 'The URL is malformed.');
      metrics.refused(refused.code);
      const headers = { 'x-request-id': request.id, ...retryHeaders(refused) };
      (reply as FastifyReply).status(refused.status).headers(headers).send(errorBody(refused));
    },
    clientErrorHandler: (error, socket) => {
      metrics.refused('invalid_http');
      answerBrokenHttp(error, socket);
    },
    // As long as a head may be: a name that is too long is unknown, not another kind of error.
    routerOptions: { maxParamLength: 16_384 },
  });
  app.server.maxConnections = limits.maxConnectionCount;
  app.removeAllContentTypeParsers();
  app.addContentTypeParser(
    'application/json',
    { parseAs: 'buffer' },
    async (_request: unknown, body: Buffer) => readJson(body),
  );
  app.decorateRequest('span', null);
  app.decorateRequest('refusable', null);
  app.addHook('onRequest', async (request, reply) => {
    reply.header('x-request-id', request.id);
    if (isDraining) reply.header('connection', 'close');
    const liftLimit = limitBodyTime(request, limits.bodyTimeLimitMs);
    if (request.headers.host === undefined && request.raw.httpVersion === '1.1') {
      throw refusal(400, 'invalid_request', 'The request has no "host" header.');
    }
    if (request.is404) throw unknownUrl(request.method, request.url);
    const { allowed, isOpen, isUpload } = request.routeOptions.config;
    if (allowed !== undefined) {
      reply.header('allow', allowed);
      if (request.method === 'OPTIONS') return reply.status(204).send();
      const path = (request.url.split('?')[0] ?? '').slice(0, 128);
      throw refusal(405, 'method_not_allowed', `${path} takes ${allowed}, not ${request.method}.`);
    }
    const { operation } = request.routeOptions.config;
    if (operation !== undefined && options.traces) {
      const traceparent = request.headers.traceparent;
      request.span = options.traces.open({
        operation,
        requestId: request.id,
        traceparent: typeof traceparent === 'string' ? traceparent : undefined,
        at: now(),
      });
    }
    if (isOpen !== true) {
      const caller = callers.of(request.headers);
      if (operation !== undefined) {
        request.refusable = {
          arrivedAt: now(),
          requestId: request.id,
          endpoint: operation === 'chat' ? '/v1/chat/completions' : '/v1/completions',
          caller,
          terms: null,
          isStreamed: false,
        };
      }
    }
    if (isUpload === true) liftLimit();
  });
  app.addHook('onSend', async (request, reply) => {
    if (request.method !== 'POST') return;
    reply.headers(answerHeaders(admission.load(), reply.elapsedTime));
  });
  app.setErrorHandler((error, request, reply) => {
    const hasLeft = request.raw.destroyed && !request.raw.complete;
    const known = asRequestError(error) ?? (hasLeft ? refusal(400, 'invalid_request', CUT_OFF) : null);
    if (known === null) {
      log(`request ${request.id} failed: ${error instanceof Error ? (error.stack ?? error.message) : error}`);
    }
    const refused = known ?? serverError('The server failed to answer this request.');
    metrics.refused(refused.code);
    request.span?.end(refused.status, refused.code, now());
    if (request.refusable !== null && known !== null && !hasLeft) {
      refusalRows.refused(request.refusable, refused, now());
    }
    return reply.status(refused.status).headers(retryHeaders(refused)).send(errorBody(refused));
  });
  addRoutes(app, inferenceRoutes(parts, options.batches ?? null), now);

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
    lines: batchLines(parts, { maxBodyBytes: limits.maxBodyBytes, log }),
  };
}

/** Every path also answers the methods it does not take: with 405, or to OPTIONS with those that it takes. */
function addRoutes(app: FastifyInstance, routes: readonly Route[], now: () => number): void {
  const byPattern = new Map<string, Route[]>();
  for (const route of routes) {
    const url = routerPattern(route);
    byPattern.set(url, [...(byPattern.get(url) ?? []), route]);
    const isUpload = route.doc.bodyType === UPLOAD_TYPE;
    const served = {
      method: route.method,
      url,
      config: { isOpen: route.isOpen === true, isUpload, operation: route.operation },
      handler: async (request: FastifyRequest, reply: FastifyReply) => {
        const answer = await route.answer(request, reply);
        request.span?.end(reply.statusCode, '', now());
        return answer;
      },
    };
    if (!isUpload) {
      app.route(served);
      continue;
    }
    // In a scope of its own, or every route would take such bodies.
    app.register(async (scope) => {
      await scope.register(multipart, { throwFileSizeLimit: false });
      scope.route(served);
    });
  }
  for (const [url, taken] of byPattern) {
    const methods = taken.map(({ method }) => method);
    const allowed = methods.flatMap((method) => (method === 'GET' ? ['GET', 'HEAD'] : [method])).join(', ');
    app.route({
      method: routerMethods.filter((method) => !methods.some((own) => own === method)),
      url,
      config: { allowed },
      handler: async () => undefined,
    });
  }
}

/** Before the body is read, which nobody asked for. */
const unknownUrl = (method: string, url: string): RequestError =>
  refusal(404, 'unknown_url', `Unknown request URL: ${method} ${(url.split('?')[0] ?? '').slice(0, 128)}.`);

const refusal = (status: number, code: string, message: string): RequestError =>
  new RequestError({ status, type: 'invalid_request_error', code, message });
