/**
 * Reads the small JSON and text files of a model folder, with a size limit and with errors that name file and fault.
 * Called by the Hugging Face readers; refuses anything but a regular file and anything but a JSON object.
 */
import { lstat, readFile, stat } from 'node:fs/promises';
import type { z } from 'zod';
import { ModelError } from './model-error.ts';

/** Tokenizers of 256k tokens take about 35 MB. Parsed, a byte may become twenty, and beyond its heap the process is lost. */
const MAX_BYTES = 64 * 1024 * 1024;

/** Real ones are about ten deep; what is nested without end overflows whoever walks through it. */
const MOST_DEPTH = 64;

/** The file's text, or null where there is no such file. */
export async function readTextIfThere(file: string): Promise<string | null> {
  const size = await sizeIfThere(file);
  if (size === null) return null;
  if (size > MAX_BYTES) throw new ModelError(file, `${size} bytes are too many for this file.`);
  try {
    return await readFile(file, 'utf8');
  } catch (error) {
    throw asModelError(file, error);
  }
}

/**
 * The size of a regular file, or null where there is none. A folder in its place or a link to nowhere (a hub cache that
 * lost a blob) is a fault, never an absent file; a pipe would be waited for without end.
 */
export async function sizeIfThere(file: string): Promise<number | null> {
  try {
    const entry = await stat(file);
    if (!entry.isFile()) throw new ModelError(file, 'it is not a regular file.');
    return entry.size;
  } catch (error) {
    if (!isMissing(error)) throw asModelError(file, error);
    const isLink = await lstat(file).then(
      (entry) => entry.isSymbolicLink(),
      () => false,
    );
    if (isLink) throw new ModelError(file, 'it is a link to a file that is not there.');
    return null;
  }
}

/** The JSON object in the file, or null where there is no such file. */
export async function readJsonIfThere(file: string): Promise<Record<string, unknown> | null> {
  const text = await readTextIfThere(file);
  return text === null ? null : parseJsonObject(file, text);
}

export async function readJson(file: string): Promise<Record<string, unknown>> {
  const object = await readJsonIfThere(file);
  if (object === null) throw new ModelError(file, 'this file is missing.');
  return object;
}

export function parseJsonObject(file: string, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new ModelError(file, `it is not valid JSON (${error instanceof Error ? error.message : error}).`);
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw new ModelError(file, 'it holds no JSON object.');
  }
  if (isDeeperThan(value, MOST_DEPTH)) {
    throw new ModelError(file, `its JSON is nested more than ${MOST_DEPTH} deep.`);
  }
  return value as Record<string, unknown>;
}

function isDeeperThan(value: object, depth: number): boolean {
  if (depth === 0) return true;
  return Object.values(value).some(
    (inner: unknown) => typeof inner === 'object' && inner !== null && isDeeperThan(inner, depth - 1),
  );
}

/** Applies a schema; the first fault becomes the sentence. */
export function parseFields<T>(file: string, schema: z.ZodType<T>, value: unknown): T {
  const parsed = schema.safeParse(value);
  if (parsed.success) return parsed.data;
  const issue = parsed.error.issues[0];
  const key = issue?.path.join('.') ?? '';
  const isAbsent = issue?.message.endsWith('received undefined') ?? false;
  throw new ModelError(file, isAbsent ? `"${key}" is missing.` : `"${key}" is wrong: ${issue?.message}.`);
}

export function isMissing(error: unknown): boolean {
  return error instanceof Error && 'code' in error && (error.code === 'ENOENT' || error.code === 'ENOTDIR');
}

export function asModelError(file: string, error: unknown): ModelError {
  if (error instanceof ModelError) return error;
  const reason = error instanceof Error ? error.message : String(error);
  return new ModelError(file, `it cannot be read (${reason}).`);
}
