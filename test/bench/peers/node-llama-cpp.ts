/**
 * node-llama-cpp as a peer: a child process that loads it out of the folder where it was installed, with its best settings
 * for many sequences. Its tokens come through its JavaScript interface, with no HTTP in between.
 */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { existsSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { fileURLToPath } from 'node:url';
import type { Arm, Sent } from './arm.ts';

const child = fileURLToPath(new URL('./node-llama-cpp-child.mjs', import.meta.url));
/** Of 110 tokens or so with the 75 words in it, as the others make of SmolLM2's template. */
const asChat = (prompt: string): string =>
  '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging Face<|im_end|>\n' +
  `<|im_start|>user\n${prompt}<|im_end|>\n<|im_start|>assistant\n`;

interface Line {
  readonly id?: number;
  readonly isReady?: boolean;
  readonly isDone?: boolean;
}

/** Resolves when the model is loaded. @throws Error where the folder has not the package, or it does not start */
export async function serveNodeLlamaCpp(
  folder: string,
  model: string,
  slotCount: number,
  threadCount: number,
): Promise<Arm> {
  if (!existsSync(join(folder, 'node_modules', 'node-llama-cpp'))) {
    throw new Error(`node-llama-cpp is not installed in ${folder}.`);
  }
  const running = spawn(process.execPath, [child, folder, model, String(slotCount), String(threadCount)], {
    stdio: ['pipe', 'pipe', 'ignore'],
  });
  const waiting = new Map<number, (line: Line) => void>();
  let ready = () => {};
  const isReady = new Promise<void>((resolve) => {
    ready = resolve;
  });
  createInterface({ input: running.stdout }).on('line', (text) => {
    const line = JSON.parse(text) as Line;
    if (line.isReady) ready();
    waiting.get(line.id ?? -1)?.(line);
  });
  const ended = once(running, 'exit').then(([code]) => `node-llama-cpp ended with code ${code}`);
  const fault = await Promise.race([ended, isReady.then(() => '')]);
  if (fault !== '') throw new Error(fault);

  let requestCount = 0;
  const send = (prompt: string, tokenCount: number): Promise<Sent> => {
    const id = requestCount;
    requestCount += 1;
    const startedAt = performance.now();
    const tokensAt: number[] = [];
    const done = new Promise<string>((resolve) => {
      waiting.set(id, (line) => (line.isDone ? resolve('') : tokensAt.push(performance.now())));
    });
    running.stdin.write(`${JSON.stringify({ id, text: asChat(prompt), tokenCount })}\n`);
    return Promise.race([done, ended]).then((fault) => {
      waiting.delete(id);
      const ttftMs = tokensAt[0] === undefined ? null : tokensAt[0] - startedAt;
      return { completionTokenCount: tokensAt.length, ttftMs, fault };
    });
  };
  return {
    threadCount,
    send,
    async stop() {
      running.stdin.end();
      await ended;
    },
  };
}
