/** What salts the prefix cache of every tenant: drawn once, kept in the data folder, so that caches outlive a restart. */
import { randomBytes } from 'node:crypto';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const SECRET_BYTES = 32;

/** @throws Error of Node's where the folder cannot be read or written; Error where the file is not a secret */
export function tenantSecret(dataDir: string): Buffer {
  const file = join(dataDir, 'tenant-secret');
  try {
    writeFileSync(file, randomBytes(SECRET_BYTES).toString('hex'), { mode: 0o600, flag: 'wx' });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
  }
  const secret = Buffer.from(readFileSync(file, 'utf8').trim(), 'hex');
  if (secret.length !== SECRET_BYTES) throw new Error(`${file} is damaged; remove it and start again.`);
  return secret;
}
