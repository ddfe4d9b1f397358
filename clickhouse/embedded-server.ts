/**
 * A real ClickHouse in a child process: loopback only, own users, own data folder. Started by the command line's
 * supervisor (and by tests) when no VARIATOR_CLICKHOUSE_URL is given. The child dies with this process, since it holds
 * our end of its standard input. It refuses a folder that another server owns, and never restarts by itself: `exited`
 * and `onExit` say that it ended, and starting it again on the same folder and port is the caller's policy.
 */
import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { randomBytes } from 'node:crypto';
import { access, chmod, mkdir, readFile, rename, writeFile } from 'node:fs/promises';
import { createRequire } from 'node:module';
import { createServer } from 'node:net';
import { dirname, join, resolve } from 'node:path';
import type { Readable, Writable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { z } from 'zod';
import {
  type Credentials,
  defaultLimits,
  EMBEDDED_DATABASE,
  type ServerLimits,
  serverConfigXml,
  usersXml,
} from './embedded-config.ts';

export interface EmbeddedServerOptions {
  /** The server's own folder; made when absent. */
  readonly dataDir: string;
  /** 0 or absent: any free port. */
  readonly port?: number;
  readonly limits?: ServerLimits;
  /** Called once when the server ends without `stop()`, with its last lines. */
  readonly onExit?: (code: number, lastLines: string) => void;
}

export interface EmbeddedServer {
  /** With the writer's credentials: http://writer:PASSWORD@127.0.0.1:PORT/variator */
  readonly url: string;
  /** The same for a user who can only select. */
  readonly readUrl: string;
  readonly port: number;
  readonly pid: number;
  /** Resolves when the process is gone. Close the clients first. */
  stop(): Promise<void>;
  /** The exit code; 128 + the signal's number where a signal ended it. */
  readonly exited: Promise<number>;
}

/** Why the embedded ClickHouse does not run, in a sentence for people. */
export class EmbeddedServerError extends Error {
  override readonly name = 'EmbeddedServerError';
}

type HostProcess = ChildProcessByStdio<Writable, null, Readable>;

const READY_LIMIT_MS = 30_000;
/** A server that is just ending (its parent was killed) holds its folder for this long at most. */
const OWNER_GRACE_MS = 2000;
const STOP_LIMIT_MS = 2000;
const LAST_LINES = 20;
/** Opens the listener, then sleeps: the engine serves for as long as its command line's query runs. */
const serveForever =
  'SYSTEM START LISTEN HTTP; SELECT sleepEachRow(1) FROM numbers(1000000000) ' +
  'SETTINGS max_block_size=1, function_sleep_max_microseconds_per_block=0 FORMAT Null';

const instead = 'or name a running ClickHouse in VARIATOR_CLICKHOUSE_URL';

function findLibrary(): string {
  const name = `@chdb/lib-${process.platform}-${process.arch}${process.platform === 'linux' ? '-gnu' : ''}`;
  try {
    return join(dirname(createRequire(import.meta.url).resolve(`${name}/package.json`)), 'libchdb.so');
  } catch (cause) {
    throw new EmbeddedServerError(
      `The embedded ClickHouse needs the npm package ${name}, which is not installed or does not exist for ` +
        `${process.platform} on ${process.arch}. Run npm install (without --omit=optional), ${instead}.`,
      { cause },
    );
  }
}

async function findHost(): Promise<string> {
  const host = fileURLToPath(new URL('build/variator-clickhouse', import.meta.url));
  try {
    await access(host);
    return host;
  } catch (cause) {
    throw new EmbeddedServerError(
      `The embedded ClickHouse's host is not built. Run node clickhouse/build.mjs, ${instead}.`,
      { cause },
    );
  }
}

const credentialsSchema = z.object({
  writerPassword: z.string().regex(/^[0-9a-f]{32,}$/),
  readerPassword: z.string().regex(/^[0-9a-f]{32,}$/),
});

async function writeSecret(file: string, text: string): Promise<void> {
  await writeFile(`${file}.draft`, text, { mode: 0o600 });
  await rename(`${file}.draft`, file);
}

/** The folder's passwords, drawn at its first start and the same ever after. */
async function credentialsOf(dataDir: string): Promise<Credentials> {
  const file = join(dataDir, 'credentials.json');
  let text: string;
  try {
    text = await readFile(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    const drawn = {
      writerPassword: randomBytes(24).toString('hex'),
      readerPassword: randomBytes(24).toString('hex'),
    };
    await writeSecret(file, JSON.stringify(drawn));
    return drawn;
  }
  try {
    return credentialsSchema.parse(JSON.parse(text));
  } catch (cause) {
    throw new EmbeddedServerError(
      `${file} is damaged; delete it and start again (new passwords are drawn, data stays).`,
      { cause },
    );
  }
}

function freePort(): Promise<number> {
  return new Promise((done, fail) => {
    const server = createServer();
    server.once('error', fail);
    server.listen(0, '127.0.0.1', () => {
      const address = server.address();
      server.close(() =>
        typeof address === 'object' && address !== null
          ? done(address.port)
          : fail(new Error('The system gave no port.')),
      );
    });
  });
}

interface Launched {
  readonly host: HostProcess;
  readonly exited: Promise<number>;
  lastLines(): string;
}

function launch(binary: string, args: readonly string[]): Launched {
  // Detached: a terminal's Ctrl-C must reach the engine first, so that its last rows still find a server.
  const host = spawn(binary, args, { stdio: ['pipe', 'ignore', 'pipe'], detached: true });
  const lines: string[] = [];
  let rest = '';
  host.stderr.setEncoding('utf8').on('data', (chunk: string) => {
    const parts = (rest + chunk).split('\n');
    rest = (parts.pop() ?? '').slice(-4096);
    lines.push(...parts.filter((line) => line.trim() !== '').map((line) => line.slice(0, 1000)));
    lines.splice(0, Math.max(0, lines.length - LAST_LINES));
  });
  // Nothing is ever written; an error here repeats what `exited` says.
  host.stdin.on('error', (error) => lines.push(error.message));
  const exited = new Promise<number>((done) => {
    host.once('error', (error) => {
      lines.push(error.message);
      done(127);
    });
    host.once('close', (code, signal) => done(code ?? (signal === 'SIGKILL' ? 137 : 143)));
  });
  return { host, exited, lastLines: () => [...lines, rest].filter((line) => line !== '').join('\n') };
}

async function isAnswering(port: number): Promise<boolean> {
  try {
    const response = await fetch(`http://127.0.0.1:${port}/ping`, {
      headers: { connection: 'close' },
      signal: AbortSignal.timeout(1000),
    });
    return (await response.text()).trim() === 'Ok.';
  } catch (error) {
    if (error instanceof TypeError || (error instanceof DOMException && error.name === 'TimeoutError')) {
      return false;
    }
    throw error;
  }
}

type Outcome = 'ready' | 'ended' | 'late';

async function waitUntilReady(launched: Launched, port: number): Promise<Outcome> {
  let hasEnded = false;
  const ended = launched.exited.then(() => {
    hasEnded = true;
  });
  const deadline = performance.now() + READY_LIMIT_MS;
  while (performance.now() < deadline) {
    // The child must still be ours: an answer on the port may be another server's.
    if ((await isAnswering(port)) && !hasEnded) {
      await Promise.race([ended, sleep(5)]);
      if (!hasEnded) return 'ready';
    }
    if (hasEnded) return 'ended';
    await Promise.race([ended, sleep(25)]);
  }
  return 'late';
}

/** @throws EmbeddedServerError with a sentence that says what to change */
export async function startEmbeddedServer(options: EmbeddedServerOptions): Promise<EmbeddedServer> {
  const limits = options.limits ?? defaultLimits;
  const dataDir = resolve(options.dataDir);
  const [library, binary] = [findLibrary(), await findHost()];
  await mkdir(dataDir, { recursive: true, mode: 0o700 });
  await chmod(dataDir, 0o700);
  const credentials = await credentialsOf(dataDir);
  const usersFile = join(dataDir, 'users.xml');
  const configFile = join(dataDir, 'config.xml');
  await writeSecret(usersFile, usersXml(credentials, limits));
  await writeSecret(configFile, serverConfigXml(credentials, usersFile, limits));

  const startedAt = performance.now();
  for (let attempt = 1; ; attempt += 1) {
    const port = options.port || (await freePort());
    const launched = launch(binary, [
      library,
      `--path=${join(dataDir, 'store')}`,
      '--multiquery',
      `--config-file=${configFile}`,
      '--listen_host=127.0.0.1',
      `--http_port=${port}`,
      `--query=${serveForever}`,
    ]);
    const outcome = await waitUntilReady(launched, port);
    if (outcome === 'ready') return running(launched, credentials, port, options.onExit);

    launched.host.kill('SIGKILL');
    await launched.exited;
    const lastLines = launched.lastLines();
    if (outcome === 'late') {
      throw new EmbeddedServerError(
        `The embedded ClickHouse did not answer within ${READY_LIMIT_MS / 1000} s. Its last lines:\n${lastLines}`,
      );
    }
    if (/Code: 76\b/.test(lastLines)) {
      if (performance.now() - startedAt < OWNER_GRACE_MS) {
        await sleep(100);
        continue;
      }
      throw new EmbeddedServerError(
        `Another ClickHouse already runs on ${dataDir}. Stop the other Variator, or choose another folder with --data.`,
      );
    }
    if (/Code: 210\b|Address already in use/.test(lastLines)) {
      if (!options.port && attempt < 5) continue;
      throw new EmbeddedServerError(`Port ${port} of 127.0.0.1 is taken; ClickHouse cannot listen there.`);
    }
    throw new EmbeddedServerError(
      `The embedded ClickHouse ended while starting (exit code ${await launched.exited}). Its last lines:\n${lastLines}`,
    );
  }
}

function running(
  launched: Launched,
  credentials: Credentials,
  port: number,
  onExit: EmbeddedServerOptions['onExit'],
): EmbeddedServer {
  let isStopping = false;
  const exited = launched.exited.then((code) => {
    if (!isStopping) onExit?.(code, launched.lastLines());
    return code;
  });
  const urlFor = (user: string, password: string): string =>
    `http://${user}:${password}@127.0.0.1:${port}/${EMBEDDED_DATABASE}`;
  return {
    url: urlFor('writer', credentials.writerPassword),
    readUrl: urlFor('reader', credentials.readerPassword),
    port,
    pid: launched.host.pid ?? -1,
    exited,
    async stop() {
      isStopping = true;
      launched.host.stdin.end();
      launched.host.kill('SIGTERM');
      const late = setTimeout(() => launched.host.kill('SIGKILL'), STOP_LIMIT_MS);
      await exited;
      clearTimeout(late);
    },
  };
}
