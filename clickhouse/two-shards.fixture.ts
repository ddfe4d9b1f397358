/**
 * For tests: two embedded ClickHouses that know each other as the two shards of cluster `c`, over real sockets. What their
 * engine lacks is taken out of the rendered statements: it replicates nothing and runs nothing ON CLUSTER, so each
 * statement is run on each server. Never imported by the product.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { mkdir, mkdtemp, rm, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { buildClickHouseHost } from './build.mjs';
import { createTelemetryClient, type TelemetryClient } from './client.ts';
import { memory, readMigrations } from './migrate.ts';
import { createDatabase, renderStatement } from './render-statement.ts';

export const cluster = { name: 'c', database: 'variator' };

export interface TwoShards {
  readonly clients: readonly [TelemetryClient, TelemetryClient];
  /** Runs a rendered statement where it would come to by itself. */
  run(statement: string): Promise<void>;
  remove(): Promise<void>;
}

const READY_LIMIT_MS = 30_000;
const serveForever =
  'SYSTEM START LISTEN HTTP; SYSTEM START LISTEN TCP; SELECT sleepEachRow(1) FROM numbers(1000000000) ' +
  'SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0 FORMAT Null';

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const address = server.address();
  server.close();
  await once(server, 'close');
  return typeof address === 'object' && address !== null ? address.port : 0;
}

const configXml = (tcpPorts: readonly number[]): string => {
  const shards = tcpPorts.map(
    (port) =>
      `<shard><replica><host>127.0.0.1</host><port>${port}</port><user>default</user></replica></shard>`,
  );
  return `<clickhouse>
    <max_server_memory_usage>1500000000</max_server_memory_usage>
    <mark_cache_size>67108864</mark_cache_size>
    <background_pool_size>2</background_pool_size>
    <background_schedule_pool_size>8</background_schedule_pool_size>
    <merge_tree>
      <number_of_free_entries_in_pool_to_execute_mutation>1</number_of_free_entries_in_pool_to_execute_mutation>
      <number_of_free_entries_in_pool_to_lower_max_size_of_merge>1</number_of_free_entries_in_pool_to_lower_max_size_of_merge>
      <number_of_free_entries_in_pool_to_execute_optimize_entire_partition>1</number_of_free_entries_in_pool_to_execute_optimize_entire_partition>
    </merge_tree>
    <remote_servers><${cluster.name}>${shards.join('')}</${cluster.name}></remote_servers>
  </clickhouse>`;
};

const asEmbedded = (statement: string): string =>
  statement
    .replace(` ON CLUSTER ${cluster.name}`, '')
    .replace(/Replicated(\w+)\('[^']+', '[^']+'\)/, '$1')
    .replace('replicated_deduplication_window =', 'non_replicated_deduplication_window =');

export async function startTwoShards(): Promise<TwoShards> {
  const binary = await buildClickHouseHost();
  const name = `@chdb/lib-${process.platform}-${process.arch}${process.platform === 'linux' ? '-gnu' : ''}`;
  const library = join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), 'libchdb.so');
  const folder = await mkdtemp(join(tmpdir(), 'variator-shards-'));
  const ports = [await freePort(), await freePort(), await freePort(), await freePort()] as const;
  const tcpPorts = ports.slice(2);
  const servers = await Promise.all(
    [0, 1].map(async (index) => {
      const home = join(folder, String(index));
      await mkdir(home);
      await writeFile(join(home, 'config.xml'), configXml(tcpPorts));
      const server = spawn(
        binary,
        [
          library,
          `--path=${join(home, 'store')}`,
          '--multiquery',
          `--config-file=${join(home, 'config.xml')}`,
          '--listen_host=127.0.0.1',
          `--http_port=${ports[index]}`,
          `--tcp_port=${tcpPorts[index]}`,
          `--query=${serveForever}`,
        ],
        { stdio: ['pipe', 'ignore', 'ignore'] },
      );
      return { server, ended: once(server, 'close') };
    }),
  );
  const clients = [0, 1].map((index) =>
    createTelemetryClient(`http://default@127.0.0.1:${ports[index]}/${cluster.database}`),
  ) as [TelemetryClient, TelemetryClient];
  const deadline = performance.now() + READY_LIMIT_MS;
  while (!(await Promise.all(clients.map((client) => client.ping()))).every(Boolean)) {
    if (performance.now() > deadline) throw new Error('The two shards did not answer.');
    await sleep(50);
  }

  const run = async (statement: string): Promise<void> => {
    const there = statement.includes(' ON CLUSTER ') ? clients : clients.slice(0, 1);
    for (const client of there) await client.command(asEmbedded(statement));
  };
  for (const client of clients) {
    await client.command(asEmbedded(createDatabase(cluster.database, cluster)), { isDatabaseless: true });
  }
  for (const statement of [memory, ...(await readMigrations()).flatMap(({ statements }) => statements)]) {
    for (const rendered of renderStatement(statement, cluster)) await run(rendered);
  }
  return {
    clients,
    run,
    async remove() {
      for (const client of clients) await client.close();
      for (const { server, ended } of servers) {
        server.kill();
        await ended;
      }
      await rm(folder, { recursive: true, force: true });
    },
  };
}
