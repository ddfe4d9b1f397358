/**
 * How the workers of this machine share its threads and KV memory: evenly. Asked by start.ts before any part runs, so that
 * what cannot be shared is one sentence and nothing was started.
 */

import { ConfigError } from '../config/config-error.ts';
import type { Config } from '../config.ts';

export interface WorkerShares {
  /** Of each worker. */
  readonly threadCount: number;
  readonly kvMemoryBytes: number;
  /** For people; '' for one worker, which has everything. */
  readonly line: string;
}

/** @throws ConfigError where a worker would get no thread */
export function workerShares(
  config: Pick<Config, 'workerCount' | 'threadCount' | 'kvMemoryBytes' | 'device'>,
): WorkerShares {
  const { workerCount, threadCount, kvMemoryBytes, device } = config;
  if (device.kind === 'simulated') {
    // They wait instead of computing, and each has the memory of its own machine.
    const line = `Simulated: ${workerCount} x ${device.text}. Answers are not the model's, and times are those of a model of that machine.`;
    return { threadCount: 1, kvMemoryBytes, line };
  }
  if (device.kind === 'cuda' || device.kind === 'cuda-emulated') {
    // Each computes on a GPU of its own, and has its memory.
    const last = device.ordinal + workerCount - 1;
    const line =
      device.kind === 'cuda-emulated'
        ? 'Emulated: the CUDA kernels run on the CPU, for tests; nothing is as fast as on a GPU.'
        : workerCount < 2
          ? ''
          : `${workerCount} workers, on cuda:${device.ordinal} to cuda:${last}`;
    return { threadCount: 1, kvMemoryBytes, line };
  }
  if (workerCount < 2) return { threadCount, kvMemoryBytes, line: '' };
  if (threadCount < workerCount) {
    throw new ConfigError(
      `${workerCount} workers need at least ${workerCount} threads, and there are ${threadCount}: lower --workers (VARIATOR_WORKERS), or raise --threads (VARIATOR_THREADS) to let them share cores.`,
    );
  }
  const each = {
    threadCount: Math.floor(threadCount / workerCount),
    kvMemoryBytes: Math.floor(kvMemoryBytes / workerCount),
  };
  const mebibytes = Math.floor(each.kvMemoryBytes / 1024 ** 2);
  const threads = each.threadCount === 1 ? '1 thread' : `${each.threadCount} threads`;
  return {
    ...each,
    line: `${workerCount} workers, each with ${threads} and ${mebibytes} MiB for its KV cache`,
  };
}
