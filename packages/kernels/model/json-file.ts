/**
 * Reads the small JSON and text files of a model folder, with a size limit and with errors that name file and fault.
 * Called by the Hugging Face readers; refuses anything but a regular file and anything but a JSON object.
 */
import { readFile, stat } from 'node:fs/promises';
import type { z } from 'zod';
import { ModelError } from './model-error.ts';

/** Tokenizers of 256k tokens take about 35 MB; more than this is no tokenizer. */
const MAX_BYTES = 256 * 1024 * 1024;

/** The file's text, or null where there is no such file. */
export async function readTextIfThere(file: string): Promise<string | null> {
  try {
    const { size } = await stat(file);
    if (size > MAX_BYTES) throw new ModelError(file, `${size} bytes are too many for this file.`);
    return await readFile(file, 'utf8');
  } catch (error) {
    if (isMissing(error)) return null;
    throw asModelError(file, error);
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
  return value as Record<string, unknown>;
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
