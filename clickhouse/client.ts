/**
 * One connection pool to the telemetry store, for everything that asks or writes: queries with server-side parameters
 * and parsed rows, statements, inserts. Called by clickhouse/queries, migrate.ts and insert.ts; made once per process by
 * its entry point. It never puts a value into SQL text and never retries: who writes (the recorder) has that policy.
 */
import { ClickHouseError, ClickHouseLogLevel, createClient } from '@clickhouse/client';
import { z } from 'zod';

/** What a parameter may be: `{name:Type}` in the SQL, the type named there. */
export type QueryParams = Readonly<Record<string, string | number | boolean | readonly (string | number)[]>>;

export interface TelemetryClient {
  /** The URL's path, `variator` where it has none. */
  readonly database: string;
  /** Rows parsed by the schema. Bounded by the client's time limit and 200,000 rows. @throws QueryError */
  query<Row>(sql: string, params: QueryParams, schema: z.ZodType<Row>): Promise<Row[]>;
  /** A statement without rows. `isDatabaseless`: the database may not exist yet. @throws QueryError */
  command(sql: string, options?: { readonly isDatabaseless?: boolean }): Promise<void>;
  /** One block, stored whole or not at all; the same token again is acknowledged and stored once. @throws QueryError */
  insert(table: string, rows: readonly object[], dedupToken: string): Promise<void>;
  /** True when ClickHouse answers. */
  ping(): Promise<boolean>;
  close(): Promise<void>;
}

export class QueryError extends Error {
  override readonly name = 'QueryError';
  readonly sql: string;
  /** ClickHouse's error code as a string; '' where no answer came. */
  readonly code: string;

  constructor(message: string, sql: string, code: string, cause: unknown) {
    super(message, { cause });
    this.sql = sql;
    this.code = code;
  }
}

export interface TelemetryClientOptions {
  readonly requestTimeoutMs?: number;
}

const MOST_RESULT_ROWS = 200_000;

function queryError(cause: unknown, sql: string): QueryError {
  if (cause instanceof QueryError) return cause;
  if (cause instanceof ClickHouseError) {
    return new QueryError(
      `ClickHouse refused (code ${cause.code}): ${cause.message}`,
      sql,
      cause.code,
      cause,
    );
  }
  // A refused connection is an AggregateError without a message of its own.
  const error = cause as { message?: string; code?: string };
  const why = error.message || error.code || String(cause);
  return new QueryError(`ClickHouse does not answer: ${why}`, sql, '', cause);
}

/** @param url http://user:password@host:port/database; the database defaults to `variator` */
export function createTelemetryClient(url: string, options: TelemetryClientOptions = {}): TelemetryClient {
  const requestTimeoutMs = options.requestTimeoutMs ?? 15_000;
  const address = new URL(url);
  const database = decodeURIComponent(address.pathname.replace(/^\/+|\/+$/g, '')) || 'variator';
  address.pathname = '';
  const client = createClient({
    url: address,
    database,
    application: 'variator',
    request_timeout: requestTimeoutMs,
    max_open_connections: 8,
    max_response_headers_size: 1024 * 1024,
    use_multipart_params_auto: true,
    log: { level: ClickHouseLogLevel.OFF },
    clickhouse_settings: {
      // On a cluster an insert is acknowledged when its shards have it.
      distributed_foreground_insert: 1,
      output_format_json_quote_64bit_integers: 0,
      // NaN, where nothing was measured, arrives as null.
      output_format_json_quote_denormals: 0,
    },
  });

  return {
    database,
    async query(sql, params, schema) {
      try {
        const result = await client.query({
          query: sql,
          query_params: { ...params },
          format: 'JSONEachRow',
          clickhouse_settings: {
            max_execution_time: Math.ceil(requestTimeoutMs / 1000),
            max_result_rows: String(MOST_RESULT_ROWS),
            result_overflow_mode: 'throw',
            wait_end_of_query: 1,
            // A figure may bear its column's name: `sum(deviceMs) AS deviceMs` means the column.
            prefer_column_name_to_alias: 1,
          },
        });
        const parsed = z.array(schema).safeParse(await result.json());
        if (parsed.success) return parsed.data;
        throw new QueryError(
          `ClickHouse answered with other columns than expected: ${z.prettifyError(parsed.error)}`,
          sql,
          '',
          parsed.error,
        );
      } catch (cause) {
        throw queryError(cause, sql);
      }
    },
    async command(sql, { isDatabaseless = false } = {}) {
      try {
        await client.command({
          query: sql,
          clickhouse_settings: {
            wait_end_of_query: 1,
            // A long statement shows that it lives, or it would be taken for a silent server and begun again beside itself.
            send_progress_in_http_headers: 1,
            http_headers_progress_interval_ms: String(Math.ceil(requestTimeoutMs / 3)),
            // The database named in a request must exist, so a first CREATE DATABASE names one that always does.
            ...(isDatabaseless ? { database: 'system' } : {}),
          },
        });
      } catch (cause) {
        throw queryError(cause, sql);
      }
    },
    async insert(table, rows, dedupToken) {
      const sql = `INSERT INTO ${table}`;
      try {
        await client.insert({
          table,
          values: [...rows],
          format: 'JSONEachRow',
          clickhouse_settings: {
            async_insert: 0,
            insert_deduplicate: 1,
            insert_deduplication_token: dedupToken,
            deduplicate_blocks_in_dependent_materialized_views: 1,
            max_insert_block_size: '1048576',
            // An absent value is refused, not stored as zero.
            input_format_null_as_default: 0,
            input_format_skip_unknown_fields: 0,
          },
        });
      } catch (cause) {
        throw queryError(cause, sql);
      }
    },
    async ping() {
      return (await client.ping()).success;
    },
    close: () => client.close(),
  };
}
