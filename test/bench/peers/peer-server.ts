/** A peer's OpenAI-compatible server on a free port of loopback: started, waited for, and ended. */
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { setTimeout as pause } from 'node:timers/promises';
import { freePort } from '../../../apps/engine/cli/free-port.ts';

export interface ServerCommand {
  readonly program: string;
  readonly args: readonly string[];
  readonly env: NodeJS.ProcessEnv;
}

/** Resolves when its /health answers. @throws Error with its last words where it ends before, or takes longer */
export async function startServer(
  commandOf: (port: number) => ServerCommand,
  limitMs: number,
): Promise<{ url: string; stop(): Promise<void> }> {
  const port = await freePort('127.0.0.1');
  const { program, args, env } = commandOf(port);
  const child = spawn(program, args, { env, stdio: ['ignore', 'pipe', 'pipe'] });
  let output = '';
  const keep = (data: Buffer) => {
    output = (output + data.toString()).slice(-2000);
  };
  child.stdout.on('data', keep);
  child.stderr.on('data', keep);
  const exited = once(child, 'exit');
  const stop = async () => {
    child.kill('SIGTERM');
    await Promise.race([exited, pause(20_000, undefined, { ref: false })]);
    child.kill('SIGKILL');
  };
  const url = `http://127.0.0.1:${port}`;
  const until = performance.now() + limitMs;
  while (child.exitCode === null && child.signalCode === null && performance.now() < until) {
    const isReady = await fetch(`${url}/health`).then(
      ({ ok }) => ok,
      () => false,
    );
    if (isReady) return { url, stop };
    await pause(200);
  }
  await stop();
  throw new Error(`${program} was not ready within ${limitMs / 1000} s:\n${output}`);
}
