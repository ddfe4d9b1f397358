/**
 * Brings the telemetry store to today's schema: forward only, in order, each file once. Called by the recorder whenever
 * ClickHouse appears, by the command line and by tests. Applied files are remembered with their SHA-256, and a file that
 * was edited afterwards is refused: write the next one instead.
 */
import { createHash } from 'node:crypto';
import { readdir, readFile } from 'node:fs/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import type { TelemetryClient } from './client.ts';
import { createDatabase, renderStatement } from './render-statement.ts';

export interface MigrateOptions {
  readonly folder?: string;
  /** As in the servers' remote_servers; null: one server. */
  readonly clusterName?: string | null;
}

export class MigrationError extends Error {
  override readonly name = 'MigrationError';
}

export interface Migration {
  readonly name: string;
  readonly sha256: string;
  /** As they are written; render-statement.ts makes of them what is run. */
  readonly statements: readonly string[];
}

const defaultFolder = fileURLToPath(new URL('migrations', import.meta.url));

/** Which migrations were applied. */
export const memory = `CREATE TABLE IF NOT EXISTS schema_migrations (
  name String COMMENT 'File in clickhouse/migrations',
  sha256 String COMMENT 'Of the file as it was applied',
  appliedAt DateTime64(3, 'UTC') DEFAULT now64(3) COMMENT 'UTC'
)
ENGINE = {engine:MergeTree}
ORDER BY name
SETTINGS non_replicated_deduplication_window = 1000
COMMENT 'Which migrations were applied'`;

/** Statements end with a semicolon at the end of a line; lines that begin with -- are comments. */
export function splitStatements(text: string): string[] {
  return text
    .split('\n')
    .filter((line) => !line.trimStart().startsWith('--'))
    .join('\n')
    .split(/;[ \t]*(?:\n|$)/)
    .map((statement) => statement.trim())
    .filter((statement) => statement !== '');
}

export async function readMigrations(folder: string = defaultFolder): Promise<Migration[]> {
  const names = (await readdir(folder)).filter((name) => name.endsWith('.sql')).sort();
  return Promise.all(
    names.map(async (name, index) => {
      if (!name.startsWith(`${String(index + 1).padStart(4, '0')}_`)) {
        throw new MigrationError(
          `Migration ${name} should be number ${index + 1}: files are numbered 0001_ up.`,
        );
      }
      const text = await readFile(`${folder}/${name}`, 'utf8');
      return {
        name,
        sha256: createHash('sha256').update(text).digest('hex'),
        statements: splitStatements(text),
      };
    }),
  );
}

const appliedRow = z.object({ name: z.string(), sha256: z.string() });

/**
 * @returns the names applied now
 * @throws MigrationError, QueryError
 */
export async function migrate(client: TelemetryClient, options: MigrateOptions = {}): Promise<string[]> {
  const { database } = client;
  const cluster = options.clusterName ? { name: options.clusterName, database } : null;
  const run = async (statement: string): Promise<void> => {
    for (const rendered of renderStatement(statement, cluster)) await client.command(rendered);
  };
  const migrations = await readMigrations(options.folder);
  await client.command(createDatabase(database, cluster), { isDatabaseless: true });
  await run(memory);
  const applied = new Map(
    (await client.query('SELECT name, sha256 FROM schema_migrations', {}, appliedRow)).map((row) => [
      row.name,
      row.sha256,
    ]),
  );

  const unknown = [...applied.keys()].filter((name) => !migrations.some((file) => file.name === name)).sort();
  if (unknown.length > 0) {
    throw new MigrationError(
      `The telemetry store has migrations this version does not know (${unknown.join(', ')}): it was used by a newer ` +
        'Variator. Use that one, or another data folder.',
    );
  }
  const edited = migrations.find((file) => (applied.get(file.name) ?? file.sha256) !== file.sha256);
  if (edited) {
    throw new MigrationError(
      `Migration ${edited.name} was edited after it had been applied. Restore it and write a new file instead.`,
    );
  }

  const names: string[] = [];
  for (const file of migrations) {
    if (applied.has(file.name)) continue;
    for (const statement of file.statements) await run(statement);
    await client.insert(
      'schema_migrations',
      [{ name: file.name, sha256: file.sha256 }],
      `${file.name}:${file.sha256}`,
    );
    names.push(file.name);
  }
  return names;
}
