/**
 * The product as `npm start` runs it, on free ports and a data folder of its own, for end-to-end tests and benches. Ends
 * it by SIGINT as a person would, and can tell whether anything survived.
 */
import { type ChildProcess, spawn } from 'node:child_process';
import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { type AdminClient, adminClient } from '../apps/engine/cli/admin-client.ts';

export const root = fileURLToPath(new URL('..', import.meta.url));

export interface RunningProduct {
  readonly inferenceUrl: string;
  readonly adminUrl: string;
  readonly webUrl: string;
  readonly modelId: string;
  readonly dataDir: string;
  readonly admin: AdminClient;
  readonly pid: number;
  /** From launch to the ready line. */
  readonly startMs: number;
  /** Everything printed so far. */
  output(): string;
  /** One Ctrl-C, or another signal; resolves with the exit code when the process has ended. */
  stop(signal?: NodeJS.Signals): Promise<number>;
  /** Processes of this product that are alive, by their command lines. */
  processes(): { pid: number; commandLine: string }[];
  removeData(): void;
}

export interface StartOptions {
  readonly flags?: readonly string[];
  readonly cwd?: string;
  readonly env?: Readonly<Record<string, string>>;
  readonly limitMs?: number;
  readonly dataDir?: string;
}

/** @throws Error with what was printed when it ends or is not ready within the limit */
export async function startProduct(options: StartOptions = {}): Promise<RunningProduct> {
  const cwd = options.cwd ?? root;
  const dataDir = options.dataDir ?? mkdtempSync(join(tmpdir(), 'variator-'));
  const ports = ['--port', '0', '--admin-port', '0', '--web-port', '0'];
  const args = [
    'apps/engine/cli/bootstrap.mjs',
    'start',
    ...ports,
    '--data',
    dataDir,
    ...(options.flags ?? []),
  ];
  const startedAt = performance.now();
  const child = spawn(process.execPath, args, {
    cwd,
    env: { ...process.env, ...options.env },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  let output = '';
  const exited = new Promise<number>((resolve) => child.once('close', (code) => resolve(code ?? 128)));
  await new Promise<void>((resolve, reject) => {
    const limit = setTimeout(() => fail('was not ready in time'), options.limitMs ?? 120_000);
    const keep = (data: Buffer) => {
      output = (output + data.toString()).slice(-200_000);
      if (output.includes('Try it:')) done(resolve);
    };
    const fail = (why: string) =>
      done(() => reject(new Error(`The product ${why}:\n${output.slice(-3000)}`)));
    const done = (act: () => void) => {
      clearTimeout(limit);
      act();
    };
    child.stdout?.on('data', keep);
    child.stderr?.on('data', keep);
    child.once('close', (code) => fail(`ended with code ${code}`));
  }).catch((error: Error) => {
    child.kill('SIGINT');
    throw error;
  });
  const found = (pattern: RegExp): string => pattern.exec(output)?.[1] ?? '';
  const adminUrl = found(/tRPC API\s+(http:\S+)\/trpc/);
  return {
    inferenceUrl: found(/OpenAI endpoint\s+(http:\S+)\/v1/),
    adminUrl,
    webUrl: found(/Dashboard\s+(http:\S+)/),
    modelId: found(/OpenAI endpoint\s+\S+\s+\((.+)\)/),
    dataDir,
    admin: adminClient(adminUrl, 'test', options.env?.VARIATOR_ADMIN_KEY ?? null),
    pid: child.pid ?? 0,
    startMs: performance.now() - startedAt,
    output: () => output,
    stop: (signal = 'SIGINT') => stopChild(child, exited, signal),
    processes: () => processesOf(dataDir),
    removeData: () => rmSync(dataDir, { recursive: true, force: true }),
  };
}

async function stopChild(
  child: ChildProcess,
  exited: Promise<number>,
  signal: NodeJS.Signals,
): Promise<number> {
  if (child.exitCode === null) child.kill(signal);
  return exited;
}

/** Every part names the data folder in its command line or holds it open; Linux only, elsewhere an empty list. */
function processesOf(dataDir: string): { pid: number; commandLine: string }[] {
  let entries: string[];
  try {
    entries = readdirSync('/proc');
  } catch {
    return [];
  }
  return entries.flatMap((entry) => {
    if (!/^\d+$/.test(entry) || Number(entry) === process.pid) return [];
    try {
      const commandLine = readFileSync(`/proc/${entry}/cmdline`, 'utf8').split('\0').join(' ');
      return commandLine.includes(dataDir) ? [{ pid: Number(entry), commandLine }] : [];
    } catch {
      // It ended while we looked.
      return [];
    }
  });
}
