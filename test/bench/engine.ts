/**
 * `npm run bench -- engine [PART...] [--peer-llama-cpp DIR] [--peer-node-llama-cpp DIR] [--peer-vllm PYTHON]
 * [--precision Q8_0|Q4_0] [--path PATH]`: what the engine is worth on this CPU, one file a question under engine/. The parts
 * that need a peer say SKIPPED without its place.
 */
import { parseArgs } from 'node:util';
import { ConfigError } from '../../apps/engine/config/config-error.ts';
import type { Figure } from './figure.ts';
import { precisionsOf } from './precisions.ts';
import { type Parts, runParts } from './run-parts.ts';

/** @throws ConfigError for an unknown flag or part */
export async function benchEngine(argv: readonly string[]): Promise<readonly Figure[]> {
  const { names, flags } = readArguments(argv);
  const llamaCpp = flags['peer-llama-cpp'] ?? null;
  const options = { precisions: precisionsOf(flags.precision), path: flags.path ?? null };
  const parts: Parts = {
    'beside-peer': async () => {
      const { besideLlamaServer } = await import('./engine/beside-peer.ts');
      return () => besideLlamaServer({ ...options, place: llamaCpp });
    },
    'beside-node-llama-cpp': async () => {
      const { besideNodeLlamaCpp } = await import('./engine/beside-peer.ts');
      return () => besideNodeLlamaCpp({ ...options, place: flags['peer-node-llama-cpp'] ?? null }, llamaCpp);
    },
    'beside-vllm': async () => {
      const { besideVllm } = await import('./engine/beside-peer.ts');
      return () => besideVllm({ ...options, place: flags['peer-vllm'] ?? null });
    },
    'busy-process': async () => (await import('./engine/busy-process.ts')).busyProcess,
    speculation: async () => (await import('./engine/speculation.ts')).speculation,
    attention: async () => (await import('./engine/attention.ts')).attentionFormats,
  };
  return runParts('engine', parts, names);
}

function readArguments(argv: readonly string[]) {
  const flag = { type: 'string' } as const;
  try {
    const options = {
      ...{ 'peer-llama-cpp': flag, 'peer-node-llama-cpp': flag, 'peer-vllm': flag },
      ...{ precision: flag, path: flag },
    };
    const { positionals, values } = parseArgs({ args: [...argv], options, allowPositionals: true });
    return { names: positionals, flags: values };
  } catch (error) {
    throw new ConfigError(error instanceof Error ? error.message : String(error));
  }
}
