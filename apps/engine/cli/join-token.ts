/**
 * The token that lets workers of other machines join: the one given, or one made at the first start and kept, so that they
 * come back after a restart. Asked by start.ts where `--join-listen` is used.
 */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { ConfigError } from '../config/config-error.ts';
import type { Config } from '../config.ts';
import { LEAST_TOKEN_LENGTH } from '../fleet/join-tls.ts';

/** @throws ConfigError where the file was spoiled */
export function joinToken({ joinToken: given, dataDir }: Pick<Config, 'joinToken' | 'dataDir'>): {
  token: string;
  /** Null where it was given. */
  file: string | null;
} {
  if (given !== null) return { token: given, file: null };
  const file = join(dataDir, 'join-token');
  try {
    writeFileSync(file, randomBytes(32).toString('base64url'), { flag: 'wx', mode: 0o600 });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const token = readFileSync(file, 'utf8').trim();
  if (token.length < LEAST_TOKEN_LENGTH)
    throw new ConfigError(`${file} holds no join token; remove it, and the next start makes one.`);
  return { token, file };
}
