/**
 * `--model org/name[@revision]`: fetches a model from a hub into the cache and gives the folder to serve. Called by the
 * supervisor before it starts anything. Only what is served is fetched: configuration, tokenizer, template, safetensors;
 * never code or pickles. A file that was cut off goes on where it stopped, gets its name only once its size and checksum are
 * the hub's, and is not fetched again. The cache has the hub's own layout, which load-model.ts opens.
 */
import { createHash } from 'node:crypto';
import { createReadStream, createWriteStream, existsSync } from 'node:fs';
import { mkdir, rename, rm, stat, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import { z } from 'zod';
import { type DownloadProgress, reasonOf } from './model-download.ts';

export interface HubModelOptions {
  readonly hubUrl: string;
  /** For models that are not open to everybody; null sends none. */
  readonly token: string | null;
  readonly cacheDir: string;
  readonly onProgress: (progress: DownloadProgress) => void;
  readonly signal: AbortSignal;
  /** Without a byte for so long, a download is tried again. */
  readonly silenceLimitMs?: number;
}

export interface HubId {
  readonly repository: string;
  readonly revision: string;
}

/** What cannot be fetched, in a sentence for people. */
export class HubError extends Error {
  override readonly name = 'HubError';
}

const namePattern = /^([\w-][\w.-]*\/[\w-][\w.-]*)(?:@(\w[\w.-]{0,127}))?$/;
const needed = ['config.json', 'tokenizer.json'];
const wanted = new Set([
  ...needed,
  'generation_config.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'chat_template.jinja',
  'model.safetensors.index.json',
]);
const weightsPattern = /^model(-\d{5}-of-\d{5})?\.safetensors$/;
const MOST_FILES = 2000;
const MOST_BYTES_IN_ALL = 2 ** 42;
const TRIES = 5;
const LEAST_PAUSE_MS = 500;
const ANSWER_LIMIT_MS = 30_000;

const modelInfo = z.object({
  sha: z.string().regex(/^\w{1,128}$/),
  siblings: z
    .array(
      z.object({
        rfilename: z.string(),
        size: z.int().min(0).nullish(),
        blobId: z.string().nullish(),
        lfs: z.object({ sha256: z.string(), size: z.int().min(0) }).nullish(),
      }),
    )
    .max(100_000),
});
interface HubFile {
  readonly name: string;
  readonly size: number;
  /** Of the content (large files), or of git's blob (small ones); null where the hub says neither. */
  readonly checksum: { readonly kind: 'sha256' | 'gitBlob'; readonly hex: string } | null;
}

/** Null where it is no hub id: an existing path is always a path. */
export function readHubId(model: string): HubId | null {
  if (existsSync(model)) return null;
  const [, repository, revision] = namePattern.exec(model) ?? [];
  return repository === undefined ? null : { repository, revision: revision ?? 'main' };
}

/** The folder of the snapshot. @throws HubError */
export async function fetchHubModel(id: HubId, options: HubModelOptions): Promise<string> {
  const { sha, files } = await listFiles(id, options);
  const place = join(options.cacheDir, 'hub', `models--${id.repository.replace('/', '--')}`);
  const snapshot = join(place, 'snapshots', sha);
  await mkdir(snapshot, { recursive: true });
  const totalBytes = files.reduce((sum, { size }) => sum + size, 0);
  let doneBytes = 0;
  for (const file of files) {
    const before = doneBytes;
    await fetchFile(id, sha, file, join(snapshot, file.name), options, (fileBytes) => {
      options.onProgress({ label: id.repository, doneBytes: before + fileBytes, totalBytes });
    });
    doneBytes += file.size;
  }
  await mkdir(join(place, 'refs'), { recursive: true });
  await writeFile(join(place, 'refs', id.revision), sha);
  return snapshot;
}

async function listFiles(id: HubId, options: HubModelOptions): Promise<{ sha: string; files: HubFile[] }> {
  const url = `${options.hubUrl}/api/models/${id.repository}/revision/${id.revision}?blobs=true`;
  const once = () => ask(url, {}, id, options);
  // Once more: a connection kept from before may be closed by now.
  const again = (error: unknown) => (error instanceof HubError ? Promise.reject(error) : once());
  const response = await once()
    .catch(again)
    .catch((error: unknown) => {
      if (error instanceof HubError) throw error;
      if (options.signal.aborted) throw new HubError('The download was ended.');
      throw new HubError(
        `There is no folder ${id.repository} here, and ${options.hubUrl} cannot be reached: ${reasonOf(error)}.`,
      );
    });
  const parsed = modelInfo.safeParse(await response.json().catch(() => null));
  if (!parsed.success)
    throw new HubError(`${options.hubUrl} answered something that is no model's description.`);
  const { sha, siblings } = parsed.data;
  const files = siblings.flatMap(({ rfilename, size, blobId, lfs }): HubFile[] => {
    if (!wanted.has(rfilename) && !weightsPattern.test(rfilename)) return [];
    const known = lfs?.size ?? size;
    if (known === null || known === undefined) return [];
    const checksum: HubFile['checksum'] = lfs
      ? { kind: 'sha256', hex: lfs.sha256 }
      : blobId
        ? { kind: 'gitBlob', hex: blobId }
        : null;
    return [{ name: rfilename, size: known, checksum }];
  });
  const missing = needed.find((name) => !files.some((file) => file.name === name));
  if (missing !== undefined) throw new HubError(`${id.repository} has no ${missing}; it cannot be served.`);
  if (!files.some(({ name }) => weightsPattern.test(name))) {
    throw new HubError(
      `${id.repository} has no weights as model.safetensors. Of a repository with GGUF files, download one and name it.`,
    );
  }
  if (files.length > MOST_FILES || files.reduce((sum, { size }) => sum + size, 0) > MOST_BYTES_IN_ALL) {
    throw new HubError(`${id.repository} is larger than any model that is served here.`);
  }
  // Small files first: what is wrong with them is known before the weights are fetched.
  return { sha, files: files.sort((a, b) => a.size - b.size) };
}

async function fetchFile(
  id: HubId,
  sha: string,
  file: HubFile,
  path: string,
  options: HubModelOptions,
  onBytes: (fileBytes: number) => void,
): Promise<void> {
  if ((await sizeOf(path)) === file.size) {
    onBytes(file.size);
    return;
  }
  const part = `${path}.part`;
  const url = `${options.hubUrl}/${id.repository}/resolve/${sha}/${file.name}`;
  let fault = '';
  for (let attempt = 0; attempt < TRIES; attempt += 1) {
    if (attempt > 0) await pause(LEAST_PAUSE_MS * 2 ** (attempt - 1), options.signal);
    try {
      await append(url, part, file, id, options, onBytes);
      if ((await sizeOf(part)) !== file.size) throw new Error('it was cut off');
      const found = file.checksum === null ? '' : await checksumOf(part, file);
      if (file.checksum !== null && found !== file.checksum.hex) {
        await rm(part, { force: true });
        throw new Error(`its checksum is ${found.slice(0, 12)}..., not the hub's`);
      }
      await mkdir(dirname(path), { recursive: true });
      await rename(part, path);
      return;
    } catch (error) {
      if (options.signal.aborted) throw new HubError('The download was ended.');
      if (error instanceof HubError) throw error;
      fault = reasonOf(error);
    }
  }
  throw new HubError(
    `${file.name} of ${id.repository} could not be fetched: ${fault}. What came is kept; start again to go on.`,
  );
}

/** What is there already is not asked for again, where the hub takes a range. */
async function append(
  url: string,
  part: string,
  file: HubFile,
  id: HubId,
  options: HubModelOptions,
  onBytes: (fileBytes: number) => void,
): Promise<void> {
  let have = (await sizeOf(part)) ?? 0;
  if (have > file.size) {
    await rm(part);
    have = 0;
  }
  if (have === file.size) return;
  const silence = new AbortController();
  const limitMs = options.silenceLimitMs ?? ANSWER_LIMIT_MS;
  const timer = setTimeout(
    () => silence.abort(new Error(`nothing arrived for ${limitMs / 1000} s`)),
    limitMs,
  );
  try {
    const headers: Record<string, string> = have > 0 ? { range: `bytes=${have}-` } : {};
    const response = await ask(url, headers, id, options, silence.signal);
    if (have > 0 && response.status !== 206) have = 0;
    if (response.body === null) throw new Error('it came without a body');
    let got = have;
    const counted = Readable.fromWeb(response.body as never).on('data', (piece: Buffer) => {
      timer.refresh();
      got += piece.length;
      if (got > file.size) silence.abort(new Error('it is longer than the hub said'));
      onBytes(Math.min(got, file.size));
    });
    await pipeline(counted, createWriteStream(part, { flags: have > 0 ? 'a' : 'w' }), {
      signal: silence.signal,
    });
  } catch (error) {
    throw silence.signal.aborted ? silence.signal.reason : error;
  } finally {
    clearTimeout(timer);
  }
}

/** @throws HubError for an answer that asking again will not change */
async function ask(
  url: string,
  headers: Record<string, string>,
  id: HubId,
  options: HubModelOptions,
  signal: AbortSignal = AbortSignal.timeout(ANSWER_LIMIT_MS),
): Promise<Response> {
  const response = await fetch(url, {
    headers: { ...headers, ...(options.token === null ? {} : { authorization: `Bearer ${options.token}` }) },
    signal: AbortSignal.any([signal, options.signal]),
  });
  if (response.ok) return response;
  await response.body?.cancel();
  if (response.status === 404) {
    throw new HubError(
      `There is no folder ${id.repository} here, and ${options.hubUrl} has no model "${id.repository}" at revision "${id.revision}".`,
    );
  }
  if (response.status === 401 || response.status === 403) {
    throw new HubError(
      `${id.repository} is not open to everybody; accept its terms at the hub and set VARIATOR_HUB_TOKEN.`,
    );
  }
  if (response.status === 416)
    throw new HubError(
      `${options.hubUrl} refused to go on with a file; remove the cache of ${id.repository}.`,
    );
  throw new Error(`${new URL(url).host} answered ${response.status}`);
}

async function checksumOf(path: string, { checksum, size }: HubFile): Promise<string> {
  const hash = createHash(checksum?.kind === 'gitBlob' ? 'sha1' : 'sha256');
  if (checksum?.kind === 'gitBlob') hash.update(`blob ${size}\0`);
  await pipeline(createReadStream(path), hash);
  return hash.digest('hex');
}

const sizeOf = (path: string): Promise<number | null> =>
  stat(path).then(
    ({ size }) => size,
    () => null,
  );

function pause(ms: number, signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener(
      'abort',
      () => {
        clearTimeout(timer);
        resolve();
      },
      { once: true },
    );
  });
}
