/**
 * A fleet with real worker processes on a small model, for the tests of lost workers: each worker dials through a proxy of
 * its own, so that its link can be cut while its process lives, and it is started again when it dies. Tests only.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import type { EndedSequence, Sampling, SequenceSpec } from '@variator/scheduler/sequence';
import { type Part, startPart } from '../cli/part.ts';
import { environmentForParts } from '../config.ts';
import type { SequenceEvent, SequenceStream } from './fleet.ts';
import { type FleetOptions, type WorkerFleet, workerFleet } from './worker-fleet.ts';

const repository = fileURLToPath(new URL('../../../', import.meta.url));
const now = () => performance.timeOrigin + performance.now();

export interface RealWorkersOptions {
  readonly workerCount: number;
  readonly modelPath?: string;
  readonly path?: string;
  readonly device?: string;
  readonly maxModelLen?: number;
  readonly fleet?: Partial<FleetOptions>;
}

export interface RealWorkers {
  readonly fleet: WorkerFleet;
  /** Where others may join. */
  readonly linkPath: string;
  readonly logged: readonly string[];
  pid(index: number): number;
  kill(index: number, signal?: NodeJS.Signals): void;
  /** Both ends see their socket close; the process lives and dials again. */
  cutLink(index: number): void;
  /** The link is cut and stays so until `mend`. */
  hold(index: number): void;
  mend(index: number): void;
  joinedCount(count: number): Promise<void>;
  close(): Promise<void>;
}

export async function realWorkers(options: RealWorkersOptions): Promise<RealWorkers> {
  const folder = mkdtempSync(join(tmpdir(), 'variator-fleet-'));
  const logged: string[] = [];
  const log = (line: string) => logged.push(line);
  const fleet = workerFleet({
    linkPath: join(folder, 'link.sock'),
    joining: null,
    model: null,
    now,
    log,
    onRows: () => {},
    pathFor: () => null,
    ...options.fleet,
  });
  await fleet.listen();
  const proxies = await Promise.all(
    Array.from({ length: options.workerCount }, (_, index) =>
      proxy(join(folder, `worker-${index}.sock`), join(folder, 'link.sock')),
    ),
  );
  const parts = proxies.map((_, index): Part => {
    const flags = ['--model', options.modelPath ?? join(repository, 'models/stories-5m')];
    flags.push('--path', options.path ?? 'reference', '--threads', '1', '--kv-memory', '64MiB');
    flags.push('--device', options.device ?? 'cpu');
    if (options.maxModelLen !== undefined) flags.push('--max-model-len', String(options.maxModelLen));
    flags.push('--worker-id', `worker-${index}`, '--link', join(folder, `worker-${index}.sock`));
    const spec = {
      name: `worker-${index}`,
      command: process.execPath,
      args: () => ['--import', 'tsx', 'apps/engine/worker/main.ts', ...flags],
      cwd: repository,
      env: environmentForParts(),
      isWatched: true as const,
    };
    return startPart(spec, log, log);
  });
  const pid = (index: number) => {
    const found = parts[index]?.pid();
    if (!found) throw new Error(`worker-${index} has no process`);
    return found;
  };
  const joinedCount = async (count: number) => {
    for (let waited = 0; fleet.workers().length !== count; waited += 10) {
      if (waited > 30_000)
        throw new Error(`${fleet.workers().length} of ${count} workers joined:\n${logged.join('\n')}`);
      await new Promise((resolve) => setTimeout(resolve, 10));
    }
  };
  await joinedCount(options.workerCount);
  return {
    fleet,
    linkPath: join(folder, 'link.sock'),
    logged,
    pid,
    kill: (index, signal = 'SIGKILL') => process.kill(pid(index), signal),
    cutLink: (index) => proxies[index]?.cut(),
    hold: (index) => proxies[index]?.hold(),
    mend: (index) => proxies[index]?.mend(),
    joinedCount,
    async close() {
      await Promise.all(parts.map((part) => part.stop(0)));
      await fleet.close();
      for (const each of proxies) each.close();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

async function proxy(from: string, to: string) {
  const sockets = new Set<Socket>();
  let isHeld = false;
  const server: Server = createServer((near) => {
    if (isHeld) {
      near.destroy();
      return;
    }
    const far = connect(to);
    for (const [socket, other] of [
      [near, far],
      [far, near],
    ] as const) {
      sockets.add(socket);
      socket.on('error', () => other.destroy());
      socket.on('close', () => {
        sockets.delete(socket);
        other.destroy();
      });
      socket.pipe(other);
    }
  });
  await new Promise<void>((resolve) => server.listen(from, resolve));
  const cut = () => {
    for (const socket of sockets) socket.destroy();
  };
  return {
    cut,
    hold() {
      isHeld = true;
      cut();
    },
    mend() {
      isHeld = false;
    },
    close() {
      cut();
      server.close();
    },
  };
}

const greedy: Sampling = { temperature: 0, topP: 1, topK: 0, seed: 0 };

export function specOf(
  sequenceId: string,
  promptTokenIds: readonly number[],
  maxTokens: number,
  sampling: Partial<Sampling> = {},
): SequenceSpec {
  return {
    sequenceId,
    promptTokenIds,
    generatedTokenIds: [],
    sampling: { ...greedy, ...sampling },
    maxTokens,
    stopTokenIds: [],
    tenant: 'test',
    program: '',
    serviceTier: 'default',
    objectives: { ttftMs: 0, itlMs: 0 },
    ageLimits: null,
    cacheSalt: 'test',
  };
}

export interface ReadStream {
  readonly tokenIds: number[];
  readonly indices: number[];
  readonly ended: EndedSequence;
  readonly end: Extract<SequenceEvent, { kind: 'ended' }>;
}

/** @param onToken is called with the count of tokens so far */
export async function readStream(
  stream: SequenceStream,
  onToken: (count: number) => void = () => {},
): Promise<ReadStream> {
  const tokenIds: number[] = [];
  const indices: number[] = [];
  let end: Extract<SequenceEvent, { kind: 'ended' }> | null = null;
  for await (const event of stream) {
    if (end !== null) throw new Error('an event after the end');
    if (event.kind === 'token') {
      tokenIds.push(event.tokenId);
      indices.push(event.index);
      onToken(tokenIds.length);
    } else end = event;
  }
  if (end === null) throw new Error('no end');
  return { tokenIds, indices, ended: end.ended, end };
}
