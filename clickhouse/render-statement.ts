/**
 * A statement of a migration as it is run: on one server as it is written, on a cluster as what comes of it there. So the
 * migrations are the only schema. Pure; called by migrate.ts. Refuses statements of which it does not know what they
 * mean on a cluster, and tables without a sharding key.
 *
 *   requests        Distributed: what everybody writes to and asks
 *   requests_local  ReplicatedMergeTree on each shard; the views there feed requests_hourly_local of the same shard
 */
export interface Cluster {
  /** As in the servers' remote_servers. */
  readonly name: string;
  readonly database: string;
}

/** By the row alone: an insert that is sent again must go to the same shards, where its token is known. */
const shardingKeys: Readonly<Record<string, string>> = {
  requests: 'cityHash64(requestId)',
  steps: 'cityHash64(bootId, stepId)',
  model_fits: 'cityHash64(fitId)',
  regimes: 'cityHash64(regimeId)',
  regime_states: 'cityHash64(detector)',
  schema_migrations: 'cityHash64(name)',
  requests_hourly: 'toUnixTimestamp(hour)',
  tenants_hourly: 'toUnixTimestamp(hour)',
  steps_hourly: 'toUnixTimestamp(hour)',
};

/** The uuid is the same on every server of the cluster, and another one when a table is made anew. */
const REPLICA = `'/clickhouse/tables/{uuid}/{shard}', '{replica}'`;
/** A gateway may be down for days with rows on its spool; the server's own default forgets after an hour. */
const REPLICATED_WINDOW =
  'replicated_deduplication_window = 10000, replicated_deduplication_window_seconds = 604800';

/** @throws Error for what cannot be rendered */
export function renderStatement(statement: string, cluster: Cluster | null): string[] {
  // A start that was cut off within a migration repeats the whole of it.
  const repeatable = statement.replace(/\bADD COLUMN (?!IF NOT EXISTS)/g, 'ADD COLUMN IF NOT EXISTS ');
  return cluster === null ? [repeatable.replace(/\{engine:(\w+)\}/g, '$1')] : onCluster(repeatable, cluster);
}

export const createDatabase = (database: string, cluster: Cluster | null): string =>
  `CREATE DATABASE IF NOT EXISTS ${quoted(database)}${cluster === null ? '' : ` ON CLUSTER ${cluster.name}`}`;

function onCluster(statement: string, { name, database }: Cluster): string[] {
  const there = `ON CLUSTER ${name}`;

  const table = /^CREATE TABLE( IF NOT EXISTS)? (\w+) (\([\s\S]+)$/.exec(statement);
  if (table) {
    const [, ifNotExists = '', of = '', rest = ''] = table;
    const key = shardingKeys[of];
    if (key === undefined) throw new Error(`Table ${of} has no sharding key.`);
    const replicated = rest
      .replace(/\{engine:(\w+)\}/, `Replicated$1(${REPLICA})`)
      .replace('non_replicated_deduplication_window = 1000', REPLICATED_WINDOW);
    return [
      `CREATE TABLE${ifNotExists} ${of}_local ${there} ${replicated}`,
      `CREATE TABLE${ifNotExists} ${of} ${there} AS ${of}_local ` +
        `ENGINE = Distributed('${name}', ${quoted(database)}, '${of}_local', ${key})`,
    ];
  }

  const view = /^CREATE MATERIALIZED VIEW (\w+) TO (\w+) AS (SELECT[\s\S]+\nFROM )(\w+)(\n[\s\S]+)$/.exec(
    statement,
  );
  if (view) {
    const [, of, to, select, from, rest] = view;
    return [
      `CREATE MATERIALIZED VIEW ${of} ${there} TO ${to}_local AS ${select}${from}_local AS ${from}${rest}`,
    ];
  }

  const altered = /^ALTER TABLE (\w+)(\s[\s\S]+)$/.exec(statement);
  if (altered) {
    const [, of, change] = altered;
    return [`ALTER TABLE ${of}_local ${there}${change}`, `ALTER TABLE ${of} ${there}${change}`];
  }

  const dropped = /^DROP TABLE IF EXISTS (\w+) SYNC$/.exec(statement);
  if (dropped) {
    const [, of] = dropped;
    return [`DROP TABLE IF EXISTS ${of} ${there} SYNC`, `DROP TABLE IF EXISTS ${of}_local ${there} SYNC`];
  }

  const droppedView = /^DROP VIEW IF EXISTS (\w+)$/.exec(statement);
  if (droppedView) return [`DROP VIEW IF EXISTS ${droppedView[1]} ${there} SYNC`];

  // From and into distributed tables, so that it takes the rows of all shards; there the table has another name.
  const filled = /^(INSERT INTO \w+ SELECT\s[\s\S]+\nFROM )(\w+)(\n[\s\S]+)$/.exec(statement);
  if (filled) {
    const [, select, from, rest] = filled;
    return [`${select}${from} AS ${from}${rest}`];
  }
  throw new Error(`It is not known what this means on a cluster: ${statement.slice(0, 80)}`);
}

const quoted = (name: string): string => `\`${name.replaceAll('\\', '\\\\').replaceAll('`', '\\`')}\``;
