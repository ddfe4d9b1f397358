/**
 * Opens a SQLite file (libsql) for one owner, with a narrow mode and the pragmas that every database of the engine wants.
 * Called by the stores of control/ and batches/, which own what they open; knows no table.
 */
import { chmodSync, closeSync, mkdirSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import Database from 'libsql';

/**
 * @param synchronous FULL: a committed change outlives a loss of power, at an fsync each; NORMAL: it outlives the process
 * @throws Error of Node's or SQLite's
 */
export function openSqliteFile(file: string, synchronous: 'FULL' | 'NORMAL'): Database.Database {
  if (file !== ':memory:') {
    mkdirSync(dirname(file), { recursive: true, mode: 0o700 });
    // The file exists with its narrow mode before anything is written; SQLite gives its WAL the same mode.
    closeSync(openSync(file, 'a', 0o600));
    chmodSync(file, 0o600);
  }
  const database = new Database(file);
  for (const pragma of [
    'busy_timeout = 3000',
    'journal_mode = WAL',
    `synchronous = ${synchronous}`,
    'foreign_keys = ON',
  ]) {
    database.pragma(pragma);
  }
  return database;
}
