/**
 * llama.cpp as a peer: its batched bench on a model file, and its quantiser for the files. Runs what lies in the folder that
 * --peer-llama-cpp names; nothing else needs it.
 */
import { execFile } from 'node:child_process';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { type Arm, overHttp } from './arm.ts';
import { startServer } from './peer-server.ts';

const run = promisify(execFile);

export interface LlamaCpp {
  /** Tokens a second: prefill of `promptTokens`, and decode of `sequenceCount` sequences behind prompts of that length. */
  batched(shape: BatchedShape): Promise<{ prefillRate: number; decodeRate: number }>;
  quantise(from: string, to: string, type: 'Q8_0' | 'Q4_0'): Promise<void>;
  /** Its server on loopback, ready, with a slot and a context of 512 tokens for each of `slotCount` requests. */
  serve(model: string, slotCount: number, threadCount: number): Promise<Arm & { readonly url: string }>;
  /** The likeliest token behind these, of a server that `serve` started with one slot. */
  nextToken(url: string, tokenIds: readonly number[]): Promise<number>;
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
      const server = await startServer(
        (port) => ({
          program: program('llama-server'),
          args: [
            ...['-m', model, '--host', '127.0.0.1', '--port', String(port), '--no-webui'],
            ...['--parallel', String(slotCount), '-c', String(512 * slotCount)],
            ...['-t', String(threadCount), '-tb', String(threadCount)],
          ],
          env: options.env,
        }),
        60_000,
      );
      return { ...server, threadCount, send: overHttp({ url: server.url, modelId: 'peer', apiKey: null }) };
    },
    async nextToken(url, tokenIds) {
      const body = {
        prompt: tokenIds,
        n_predict: 1,
        temperature: 0,
        cache_prompt: true,
        return_tokens: true,
      };
      const response = await fetch(`${url}/completion`, { method: 'POST', body: JSON.stringify(body) });
      const { tokens } = (await response.json()) as { tokens?: number[] };
      if (tokens?.length !== 1) throw new Error(`llama-server answered ${response.status} without a token.`);
      return tokens[0] ?? -1;
    },
    async quantise(from, to, type) {
      await run(quantiser, ['--allow-requantize', from, to, type], options);
    },
  };
}
