/**
 * A route of the inference endpoint as data: where it is, what it takes and answers, and what it does. server.ts registers
 * the list, openapi.ts describes it; so no route is served undescribed. One file a noun under routes/.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { z } from 'zod';

export interface Route {
  readonly method: 'GET' | 'POST' | 'DELETE';
  /** As OpenAPI writes it: `/v1/files/{file_id}`. */
  readonly path: string;
  /** The router's pattern, where it is not the path with `:name` for `{name}`. */
  readonly pattern?: string;
  /** Answered without a key: probes and metrics. */
  readonly isOpen?: true;
  /** What a trace calls it; none where it generates nothing. */
  readonly operation?: 'chat' | 'text_completion';
  readonly doc: RouteDoc;
  /** @throws RequestError */
  readonly answer: (request: FastifyRequest, reply: FastifyReply) => Promise<unknown>;
}

export interface RouteDoc {
  readonly summary: string;
  /** The schema that parses the body; none where there is no body. */
  readonly body?: z.ZodType;
  readonly bodyType?: string;
  /** The schema that parses the query. */
  readonly query?: z.ZodObject;
  /** What a 200 carries, by content type. */
  readonly ok: Readonly<Record<string, z.ZodType>>;
  /** What a 503 carries, where it is not the error shape. */
  readonly unready?: z.ZodType;
  /** Statuses of refusals beside those that every route may give. */
  readonly refusals: readonly number[];
}

export const routerPattern = (route: Route): string =>
  route.pattern ?? route.path.replace(/\{(\w+)\}/g, ':$1');
