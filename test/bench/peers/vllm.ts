/**
 * vLLM's CPU build as a peer: its OpenAI server by the Python of a virtual environment where it is installed, on a Hugging
 * Face folder in bf16, the precision it computes in there.
 */
import { existsSync } from 'node:fs';
import { type Arm, overHttp } from './arm.ts';
import { startServer } from './peer-server.ts';

/** It compiles what it runs before it is ready. */
const START_LIMIT_MS = 900_000;

/** @throws Error where there is no such Python, or the server does not start */
export async function serveVllm(
  python: string,
  folder: string,
  slotCount: number,
  threadCount: number,
): Promise<Arm> {
  if (!existsSync(python)) throw new Error(`There is no ${python}.`);
  const cores = threadCount === 1 ? '0' : `0-${threadCount - 1}`;
  const env = {
    ...process.env,
    VLLM_CPU_KVCACHE_SPACE: '1',
    VLLM_CPU_OMP_THREADS_BIND: cores,
    VLLM_NO_USAGE_STATS: '1',
    HF_HUB_OFFLINE: '1',
  };
  const commandOf = (port: number) => ({
    program: python,
    args: [
      ...['-m', 'vllm.entrypoints.openai.api_server', '--model', folder, '--served-model-name', 'peer'],
      ...['--host', '127.0.0.1', '--port', String(port), '--dtype', 'bfloat16'],
      ...['--max-model-len', '512', '--max-num-seqs', String(slotCount)],
    ],
    env,
  });
  const { url, stop } = await startServer(commandOf, START_LIMIT_MS);
  return { threadCount, send: overHttp({ url, modelId: 'peer', apiKey: null }), stop };
}
