/**
 * One multipart upload, from socket to a file on the disk, never held in memory. Called by routes/files.ts. What is not
 * exactly one file of purpose "batch" is refused by name and nothing of it is kept.
 */
import type { FastifyReply, FastifyRequest } from 'fastify';
import type { StoredFile } from '../batches/batch.ts';
import type { FileDraft } from '../batches/file-place.ts';
import type { Batches } from '../batches/open-batches.ts';
import { invalidRequest, RequestError } from '../generation/request-error.ts';
import { MAX_EXPIRY_SECONDS, MIN_EXPIRY_SECONDS } from './expiry.ts';

const knownFields = ['purpose', 'expires_after[anchor]', 'expires_after[seconds]'];
/** Around the file: boundaries, part headers, the other fields. */
const ENVELOPE_BYTES = 64 * 1024;
/** Of an upload that is refused: read on so that the client gets to read why, but not for ever. */
const MOST_DISCARDED_BYTES = 64 * 1024 * 1024;
const DISCARD_LIMIT_MS = 30_000;
const MOST_FILENAME_CHARS = 255;

/** The parser takes any name; ours is shown and sent back in a header, and names no path. */
const unshowable = /[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Surrogate}]/gu;

/** @throws RequestError, BatchError, Error of Node's from the disk */
export async function receiveUpload(
  request: FastifyRequest,
  reply: FastifyReply,
  batches: Batches,
  tenant: string,
): Promise<StoredFile> {
  const { maxFileBytes } = batches.limits;
  const announced = Number(request.headers['content-length'] ?? 0);
  let draft: FileDraft | null = null;
  try {
    if (announced > maxFileBytes + ENVELOPE_BYTES) throw tooLarge(maxFileBytes);
    draft = await batches.draftFile();
    const { filename, fields } = await readParts(request, draft, maxFileBytes);
    return await batches.addFile(draft, { tenant, filename, expiresAfterMs: expiryOf(fields) });
  } catch (error) {
    await draft?.discard();
    if (!(await discardRest(request))) reply.header('connection', 'close');
    throw error;
  }
}

/** @throws RequestError; what the draft throws */
async function readParts(
  request: FastifyRequest,
  draft: FileDraft,
  maxFileBytes: number,
): Promise<{ readonly filename: string; readonly fields: ReadonlyMap<string, string> }> {
  const fields = new Map<string, string>();
  let filename: string | null = null;
  let isTooLarge = false;
  let writeFault: { readonly error: unknown } | null = null;
  try {
    const limits = {
      fileSize: maxFileBytes,
      files: 2,
      fields: 8,
      parts: 10,
      fieldSize: 1024,
      fieldNameSize: 100,
      headerPairs: 64,
    };
    for await (const part of request.parts({ limits })) {
      if (part.type === 'field') {
        takeField(fields, part.fieldname, String(part.value));
        continue;
      }
      if (part.fieldname !== 'file') throw unknownField(part.fieldname);
      if (filename !== null) throw invalidRequest('invalid_value', 'file', 'Send one file, not several.');
      filename = nameOf(part.filename);
      for await (const chunk of part.file as AsyncIterable<Buffer>) {
        try {
          await draft.write(chunk);
        } catch (error) {
          writeFault = { error };
          throw error;
        }
      }
      isTooLarge ||= part.file.truncated;
    }
  } catch (error) {
    if (writeFault !== null) throw writeFault.error;
    if (error instanceof RequestError) throw error;
    throw malformed(error);
  }
  if (isTooLarge) throw tooLarge(maxFileBytes);
  if (filename === null)
    throw invalidRequest('missing_required_parameter', 'file', 'Send the file as the part "file".');
  if (!fields.has('purpose')) {
    throw invalidRequest('missing_required_parameter', 'purpose', 'The parameter "purpose" is required.');
  }
  if (draft.bytes === 0) throw invalidRequest('invalid_value', 'file', 'The file is empty.');
  return { filename, fields };
}

function takeField(fields: Map<string, string>, name: string, value: string): void {
  if (name === 'file') {
    throw invalidRequest('invalid_type', 'file', '"file" must be a file part, with a file name.');
  }
  if (!knownFields.includes(name)) throw unknownField(name);
  if (fields.has(name)) throw invalidRequest('invalid_value', name, `"${name}" is given twice.`);
  if (name === 'purpose' && value !== 'batch') {
    throw invalidRequest(
      'invalid_value',
      'purpose',
      `Files of purpose "${value.slice(0, 32)}" are not taken here; send "batch".`,
    );
  }
  fields.set(name, value);
}

function expiryOf(fields: ReadonlyMap<string, string>): number | null {
  const anchor = fields.get('expires_after[anchor]');
  const seconds = fields.get('expires_after[seconds]');
  if (anchor === undefined && seconds === undefined) return null;
  if (anchor !== 'created_at') {
    throw invalidRequest(
      'invalid_value',
      'expires_after.anchor',
      '"expires_after.anchor" must be "created_at".',
    );
  }
  const count = /^\d{1,9}$/.test(seconds ?? '') ? Number(seconds) : Number.NaN;
  if (!(count >= MIN_EXPIRY_SECONDS && count <= MAX_EXPIRY_SECONDS)) {
    throw invalidRequest(
      'invalid_value',
      'expires_after.seconds',
      `"expires_after.seconds" must be a whole number from ${MIN_EXPIRY_SECONDS} to ${MAX_EXPIRY_SECONDS}.`,
    );
  }
  return count * 1000;
}

function nameOf(asked: string | undefined): string {
  const last = (asked ?? '').split(/[\\/]/).at(-1) ?? '';
  const clean = last.slice(0, MOST_FILENAME_CHARS).replace(unshowable, '');
  return clean === '' || /^\.+$/.test(clean) ? 'upload.jsonl' : clean;
}

/** True where the whole body has been read, so that the connection can go on. */
async function discardRest(request: FastifyRequest): Promise<boolean> {
  const { raw } = request;
  if (raw.complete && raw.readableLength === 0) return true;
  if (raw.destroyed) return false;
  return new Promise((resolve) => {
    let discardedBytes = 0;
    const settle = (isWhole: boolean): void => {
      clearTimeout(timer);
      raw.off('data', count);
      raw.off('end', end);
      raw.off('close', close);
      raw.pause();
      resolve(isWhole);
    };
    const timer = setTimeout(() => settle(false), DISCARD_LIMIT_MS);
    const count = (chunk: Buffer): void => {
      discardedBytes += chunk.length;
      if (discardedBytes > MOST_DISCARDED_BYTES) settle(false);
    };
    const end = (): void => settle(true);
    const close = (): void => settle(raw.complete);
    raw.on('data', count);
    raw.on('end', end);
    raw.on('close', close);
    raw.resume();
  });
}

const unknownField = (name: string): RequestError =>
  invalidRequest(
    'unsupported_parameter',
    name.slice(0, 64),
    `The parameter "${name.slice(0, 64)}" is not supported.`,
  );

const tooLarge = (maxFileBytes: number): RequestError =>
  new RequestError({
    status: 413,
    type: 'invalid_request_error',
    code: 'file_too_large',
    param: 'file',
    message: `The file is larger than ${maxFileBytes} bytes; split it.`,
  });

const malformed = (error: unknown): RequestError => {
  const why = error instanceof Error ? error.message.slice(0, 120).replace(/\.$/, '') : 'it cannot be read';
  return invalidRequest(
    'invalid_multipart',
    null,
    `The body is not a sound multipart/form-data upload: ${why}.`,
  );
};
