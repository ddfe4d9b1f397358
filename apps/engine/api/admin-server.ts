/**
 * The admin port: the tRPC API under /trpc and GET /health, behind the guard. Built by main.ts beside the inference
 * server, never on its port. Holds no state of its own.
 */

import { TRPCError } from '@trpc/server';
import { type FastifyTRPCPluginOptions, fastifyTRPCPlugin } from '@trpc/server/adapters/fastify';
import { getHTTPStatusCodeFromError } from '@trpc/server/http';
import { type TRPC_ERROR_CODE_KEY, TRPC_ERROR_CODES_BY_KEY } from '@trpc/server/rpc';
import Fastify, { type FastifyInstance } from 'fastify';
import { clientOf, refusalOf } from './admin-guard.ts';
import { type AppRouter, appRouter } from './router.ts';
import { assertSafeToListen } from './safe-to-listen.ts';
import type { ApiContext, EngineParts } from './trpc.ts';

const MOST_BODY_BYTES = 1024 * 1024;
/** More calls in one HTTP request than any page has. */
const MOST_BATCHED_CALLS = 24;

export interface AdminServerOptions extends EngineParts {
  readonly host: string;
  /** 0 takes a free one. */
  readonly port: number;
  /** null where none is set; then only loopback is listened on. */
  readonly adminKey: string | null;
  readonly log: (line: string) => void;
}

export interface AdminServer {
  /** Resolves with the address once the port is open. */
  listen(): Promise<{ url: string; port: number }>;
  close(): Promise<void>;
}

/** @throws UnsafeListenError where the host is not loopback and no admin key is set */
export function createAdminServer(options: AdminServerOptions): AdminServer {
  const { host, adminKey, log, port: wantedPort, ...parts } = options;
  // The inference port's key is that port's question; here only the admin key opens anything.
  assertSafeToListen({ host, apiKey: adminKey, adminKey });
  let port = wantedPort;

  const server: FastifyInstance = Fastify({
    bodyLimit: MOST_BODY_BYTES,
    // Twice what a batch of calls needs; longer ones belong into a body.
    routerOptions: { maxParamLength: 2048 },
    requestTimeout: 30_000,
    connectionTimeout: 0,
    forceCloseConnections: true,
  });
  server.addHook('onRequest', async (request, reply) => {
    const refusal = refusalOf(request, { host, port, adminKey });
    if (refusal) return reply.code(refusal.status).send(errorBody(refusal.code, refusal.message));
  });
  server.setErrorHandler((error: { statusCode?: number; message: string }, _request, reply) => {
    const status = error.statusCode ?? 500;
    if (status === 413) {
      const sentence = `The body is larger than ${MOST_BODY_BYTES} bytes.`;
      return reply.code(413).send(errorBody('PAYLOAD_TOO_LARGE', sentence));
    }
    if (status < 500) return reply.code(status).send(errorBody('BAD_REQUEST', error.message));
    log(`admin port: ${error.message}`);
    const sentence = 'The gateway failed to answer this; its log says why.';
    return reply.code(500).send(errorBody('INTERNAL_SERVER_ERROR', sentence));
  });
  server.setNotFoundHandler((_request, reply) =>
    reply.code(404).send(errorBody('NOT_FOUND', 'There is nothing here; the API is under /trpc.')),
  );
  server.get('/health', () => ({ status: 'ok' }));
  server.register(fastifyTRPCPlugin<AppRouter>, {
    prefix: '/trpc',
    trpcOptions: {
      router: appRouter,
      maxBatchSize: MOST_BATCHED_CALLS,
      createContext: ({ req }): ApiContext => ({ ...parts, who: clientOf(req) }),
      onError: ({ error, path }) => {
        if (error.code !== 'INTERNAL_SERVER_ERROR') return;
        log(`admin port: ${path ?? 'a call'} failed: ${error.cause?.stack ?? error.message}`);
      },
    },
  } satisfies FastifyTRPCPluginOptions<AppRouter>);

  return {
    async listen() {
      await server.listen({ host, port: wantedPort });
      const address = server.server.address();
      if (address !== null && typeof address === 'object') port = address.port;
      return { url: `http://${host.includes(':') ? `[${host}]` : host}:${port}`, port };
    },
    close: () => server.close(),
  };
}

/** tRPC's error envelope, so that its client shows the sentence; one object answers every call of a batch. */
function errorBody(code: TRPC_ERROR_CODE_KEY, message: string) {
  const httpStatus = getHTTPStatusCodeFromError(new TRPCError({ code, message }));
  return { error: { message, code: TRPC_ERROR_CODES_BY_KEY[code], data: { code, httpStatus } } };
}
