/**
 * llama.cpp as a peer: its batched bench on a model file, and its quantiser for the files. Runs what lies in the folder that
 * --peer-llama-cpp names; nothing else needs it.
 */
import { execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { type AddressInfo, createServer } from 'node:net';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { promisify } from 'node:util';

const run = promisify(execFile);

export interface LlamaCpp {
  /** Tokens a second: prefill of `promptTokens`, and decode of `sequenceCount` sequences behind prompts of that length. */
  batched(shape: BatchedShape): Promise<{ prefillRate: number; decodeRate: number }>;
  quantise(from: string, to: string, type: 'Q8_0' | 'Q4_0'): Promise<void>;
  /** Its server on loopback, ready, with a slot and a context of 512 tokens for each of `slotCount` requests. */
  serve(model: string, slotCount: number, threadCount: number): Promise<{ url: string; stop(): void }>;
}

export interface BatchedShape {
  readonly model: string;
  readonly promptTokens: number;
  readonly newTokens: number;
  readonly sequenceCount: number;
  readonly threadCount: number;
}

/** @throws Error where the folder has not the programs */
export function llamaCpp(folder: string): LlamaCpp {
  const program = (name: string): string => {
    const path = join(folder, name);
    if (!existsSync(path)) throw new Error(`There is no ${name} in ${folder}.`);
    return path;
  };
  const bench = program('llama-batched-bench');
  const quantiser = program('llama-quantize');
  const options = { env: { ...process.env, LD_LIBRARY_PATH: folder }, maxBuffer: 2 ** 26 };
  return {
    async batched({ model, promptTokens, newTokens, sequenceCount, threadCount }) {
      const context = String(2 * sequenceCount * (promptTokens + newTokens) + 256);
      const { stdout } = await run(
        bench,
        [
          ...['-m', model, '-c', context, '-b', '2048', '-ub', '512', '--output-format', 'jsonl'],
          ...['-npp', String(promptTokens), '-ntg', String(newTokens), '-npl', String(sequenceCount)],
          ...['-t', String(threadCount), '-tb', String(threadCount)],
        ],
        options,
      );
      const line = stdout.split('\n').find((each) => each.startsWith('{')) ?? '';
      const { speed_pp, speed_tg } = JSON.parse(line) as { speed_pp: number; speed_tg: number };
      return { prefillRate: speed_pp, decodeRate: speed_tg };
    },
    async serve(model, slotCount, threadCount) {
      const port = await freePort();
      const child = spawn(
        program('llama-server'),
        [
          ...['-m', model, '--host', '127.0.0.1', '--port', String(port), '--no-webui'],
          ...['--parallel', String(slotCount), '-c', String(512 * slotCount)],
          ...['-t', String(threadCount), '-tb', String(threadCount)],
        ],
        { env: options.env, stdio: 'ignore' },
      );
      const url = `http://127.0.0.1:${port}`;
      const until = performance.now() + 60_000;
      while (child.exitCode === null && performance.now() < until) {
        const isReady = await fetch(`${url}/health`).then(
          ({ ok }) => ok,
          () => false,
        );
        if (isReady) return { url, stop: () => void child.kill('SIGTERM') };
        await pause(200);
      }
      child.kill('SIGKILL');
      throw new Error('llama-server was not ready within a minute.');
    },
    async quantise(from, to, type) {
      await run(quantiser, ['--allow-requantize', from, to, type], options);
    },
  };
}

async function freePort(): Promise<number> {
  const server = createServer().listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  server.close();
  await once(server, 'close');
  return port;
}
