/** Finds out what a trace is from what it holds, or takes the caller's word, and gives its reader. Used by the command. */
import { closeSync, existsSync, openSync, readSync, statSync } from 'node:fs';
import { ConfigError } from '../../config/config-error.ts';
import { azureHeader, azureTrace } from './azure-trace.ts';
import { exgenticSessions, exgenticTrace } from './exgentic-trace.ts';
import { mooncakeTrace } from './mooncake-trace.ts';
import { TraceFaults, type TrafficSource } from './planned-traffic.ts';
import { isServeGenFolder, serveGenTrace } from './servegen-trace.ts';

export const traceFormats = ['mooncake', 'azure', 'servegen', 'exgentic'] as const;
export type TraceFormat = (typeof traceFormats)[number];

export interface TraceOptions {
  readonly path: string;
  /** null: from what is there. */
  readonly format: TraceFormat | null;
  readonly seed: number;
  readonly fromMs: number;
}

/** @throws ConfigError */
export async function openTrace(options: TraceOptions): Promise<TrafficSource & { format: TraceFormat }> {
  const { path, seed, fromMs } = options;
  if (!existsSync(path)) throw new ConfigError(`There is no trace at ${path}.`);
  const format = options.format ?? formatOf(path);
  const isFolder = statSync(path).isDirectory();
  if (isFolder !== (format === 'servegen' || format === 'exgentic')) {
    throw new ConfigError(`A trace of format ${format} is ${isFolder ? 'one file, not a' : 'a'} folder.`);
  }
  const faults = new TraceFaults();
  if (format === 'mooncake') return { format, ...mooncakeTrace(path, faults) };
  if (format === 'azure') return { format, ...azureTrace(path, faults) };
  if (format === 'servegen') return { format, ...serveGenTrace(path, seed, fromMs, faults) };
  const sessions = exgenticSessions(path);
  if (sessions === null) throw new ConfigError(`${path} holds no sessions/ID/agent/litellm/trace.jsonl.`);
  return { format, ...(await exgenticTrace(sessions, faults)) };
}

/** @throws ConfigError where it looks like none */
function formatOf(path: string): TraceFormat {
  if (statSync(path).isDirectory()) {
    if (exgenticSessions(path) !== null) return 'exgentic';
    if (isServeGenFolder(path)) return 'servegen';
  } else {
    const start = startOf(path);
    if (start.startsWith(azureHeader)) return 'azure';
    if (start.includes('"hash_ids"')) return 'mooncake';
  }
  throw new ConfigError(
    `${path} looks like none of ${traceFormats.join(', ')}; say which it is with --format. (ServeGen: the folder with chunk-0-trace.csv. Exgentic: the folder with sessions/.)`,
  );
}

function startOf(path: string): string {
  const file = openSync(path, 'r');
  try {
    const buffer = Buffer.alloc(65_536);
    return buffer.toString('utf8', 0, readSync(file, buffer)).replace(/^\uFEFF/, '');
  } finally {
    closeSync(file);
  }
}
