/**
 * Files that keep what a microbenchmark at load chose, beside the packed weights. Called by measured-tunings.ts and
 * measured-attention.ts. A file that cannot be read or written is no fault: then it is measured again.
 */
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { nativeFile } from '@variator/kernels/native';
import { z } from 'zod';

const MOST_FILES = 64;

/** Where tunings are kept, and what tells them from all others; the native code's own hash is added to the key. */
export interface TuningsPlace {
  /** null: nowhere. */
  readonly file: string | null;
  readonly key: string;
}

/** What was kept for exactly this, or null. */
export function readKept<Tunings>({ file, key }: TuningsPlace, tunings: z.ZodType<Tunings>): Tunings | null {
  if (file === null) return null;
  const schema = z.object({ key: z.literal(fullKey(key)), tunings });
  try {
    return schema.parse(JSON.parse(readFileSync(file, 'utf8'))).tunings;
  } catch {
    return null;
  }
}

export function keep({ file, key }: TuningsPlace, tunings: unknown): void {
  if (file === null) return;
  try {
    // Whole or not at all, also beside another worker that writes the same.
    const part = `${file}.${process.pid}`;
    writeFileSync(part, JSON.stringify({ key: fullKey(key), tunings }), { mode: 0o600 });
    renameSync(part, file);
    tidy(dirname(file));
  } catch {
    // A full or read-only disk: the next start measures again.
  }
}

function tidy(folder: string): void {
  const files = readdirSync(folder)
    .filter((name) => name.includes('.tunings'))
    .map((name) => ({ path: join(folder, name), at: statSync(join(folder, name)).mtimeMs }))
    .sort((a, b) => b.at - a.at);
  for (const { path } of files.slice(MOST_FILES)) rmSync(path, { force: true });
}

function fullKey(key: string): string {
  const code = createHash('sha256').update(readFileSync(nativeFile)).digest('hex').slice(0, 16);
  return `${key} ${code}`;
}
