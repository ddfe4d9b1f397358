/**
 * The embedded ClickHouse's configuration as text: who may do what, how much memory it takes, which HTTP paths it
 * answers. Called by embedded-server.ts, which writes the files (0600, they hold secrets). Pure.
 *
 * `default` has to exist with an empty password, because libchdb's command line logs in as it; so it may do nothing but
 * open the listener, and HTTP answers only those who send exactly the writer's or the reader's credentials. Neither of
 * these may read files, fetch URLs or stop the server.
 */
import { createHash } from 'node:crypto';

export interface Credentials {
  readonly writerPassword: string;
  readonly readerPassword: string;
}

export interface ServerLimits {
  readonly memoryBytes: number;
  readonly threadCount: number;
}

export const defaultLimits: ServerLimits = { memoryBytes: 2_000_000_000, threadCount: 2 };

/** The only database the embedded server's users have rights on. */
export const EMBEDDED_DATABASE = 'variator';

const escapeXml = (text: string): string =>
  text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);

function element(name: string, content: string | number | readonly string[]): string {
  return `<${name}>${typeof content === 'object' ? content.join('\n') : escapeXml(String(content))}</${name}>`;
}

const basic = (user: string, password: string): string =>
  Buffer.from(`${user}:${password}`).toString('base64').replace(/[+/=]/g, '\\$&');

export function serverConfigXml(credentials: Credentials, usersFile: string, limits: ServerLimits): string {
  const { writerPassword, readerPassword } = credentials;
  const known = `${basic('writer', writerPassword)}|${basic('reader', readerPassword)}`;
  return element('clickhouse', [
    element('max_server_memory_usage', limits.memoryBytes),
    element('mark_cache_size', 64 * 1024 * 1024),
    element('uncompressed_cache_size', 0),
    element('max_concurrent_queries', 64),
    element('background_pool_size', 2),
    element('background_common_pool_size', 2),
    element('background_schedule_pool_size', 8),
    element('background_move_pool_size', 1),
    element('background_fetches_pool_size', 1),
    element('asynchronous_metrics_update_period_s', 60),
    // The defaults of these assume a background pool of 16 and are refused beside one of 2.
    element('merge_tree', [
      element('number_of_free_entries_in_pool_to_execute_mutation', 1),
      element('number_of_free_entries_in_pool_to_lower_max_size_of_merge', 1),
      element('number_of_free_entries_in_pool_to_execute_optimize_entire_partition', 1),
    ]),
    element('http_handlers', [
      element('rule', [element('url', '/ping'), element('handler', [element('type', 'ping')])]),
      element('rule', [
        element('url', 'regex:/.*'),
        element('methods', 'GET,POST'),
        element('headers', [element('Authorization', `regex:Basic (${known})`)]),
        element('handler', [element('type', 'dynamic_query_handler'), element('query_param_name', 'query')]),
      ]),
    ]),
    element('user_directories', [element('users_xml', [element('path', usersFile)])]),
  ]);
}

const grants = (queries: readonly string[]): string =>
  element(
    'grants',
    queries.map((query) => element('query', query)),
  );

function user(name: string, password: string, profile: string, rights: readonly string[]): string {
  return element(name, [
    password === ''
      ? element('password', '')
      : element('password_sha256_hex', createHash('sha256').update(password).digest('hex')),
    element('networks', [element('ip', '127.0.0.1')]),
    element('profile', profile),
    element('quota', 'default'),
    grants(rights),
  ]);
}

export function usersXml(credentials: Credentials, limits: ServerLimits): string {
  return element('clickhouse', [
    element('profiles', [
      element('default', [
        element('max_threads', limits.threadCount),
        // Below the default of 1 GiB, or a small memory cap halves the threads of every query.
        element('max_threads_min_free_memory_per_thread', 64 * 1024 * 1024),
      ]),
      element('reader', [
        element('readonly', 2),
        element('max_execution_time', 15),
        element('max_memory_usage', Math.floor(limits.memoryBytes / 2)),
      ]),
    ]),
    element('quotas', [element('default', [])]),
    element('users', [
      user('default', '', 'default', ['GRANT SYSTEM LISTEN ON *.*']),
      user('writer', credentials.writerPassword, 'default', [
        `GRANT ALL ON ${EMBEDDED_DATABASE}.*`,
        'GRANT SELECT ON system.*',
        'GRANT TABLE ENGINE ON Atomic',
        'GRANT TABLE ENGINE ON MergeTree',
        'GRANT TABLE ENGINE ON AggregatingMergeTree',
      ]),
      user('reader', credentials.readerPassword, 'reader', [`GRANT SELECT ON ${EMBEDDED_DATABASE}.*`]),
    ]),
  ]);
}
