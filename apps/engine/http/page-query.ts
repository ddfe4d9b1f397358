/** The query of a list: `limit`, `after` and what else a route takes, from the text that a URL holds. */
import { z } from 'zod';
import type { PageQuery } from '../batches/batches-store.ts';
import { invalidRequest } from '../generation/request-error.ts';
import { parseStrictly } from './parameters.ts';

/** @param more further parameters, by name */
export function pageQuerySchema<More extends z.ZodRawShape>(maxLimit: number, more: More) {
  return z.strictObject({
    limit: z.coerce.number().int().min(1).max(maxLimit).optional(),
    after: z.string().min(1).max(128).optional(),
    order: z.enum(['asc', 'desc']).optional(),
    ...more,
  });
}

/** What every list's query has, once parsed. */
interface ParsedPage {
  readonly limit?: number | undefined;
  readonly after?: string | undefined;
  readonly order?: 'asc' | 'desc' | undefined;
}

export const pageOf = ({ limit, after, order }: ParsedPage, defaultLimit: number): PageQuery => ({
  limit: limit ?? defaultLimit,
  after: after ?? null,
  order: order ?? 'desc',
});

/** @throws RequestError */
export function readQuery<Schema extends z.ZodType>(schema: Schema, query: unknown): z.infer<Schema> {
  const twice = Object.entries(query as object).find(([, value]) => Array.isArray(value));
  if (twice !== undefined) {
    const name = twice[0].slice(0, 64);
    throw invalidRequest('invalid_value', name, `"${name}" is given twice.`);
  }
  return parseStrictly(schema, query);
}
