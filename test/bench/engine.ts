/**
 * `npm run bench -- engine [PART...] [--peer-llama-cpp DIR]`: what the engine is worth on this CPU, one file a question under
 * engine/. Without the peer's folder the part that needs it says SKIPPED.
 */
import { parseArgs } from 'node:util';
import { ConfigError } from '../../apps/engine/config/config-error.ts';
import type { Figure } from './figure.ts';
import { type Parts, runParts } from './run-parts.ts';

/** @throws ConfigError for an unknown flag or part */
export async function benchEngine(argv: readonly string[]): Promise<readonly Figure[]> {
  const { names, peer } = readArguments(argv);
  const parts: Parts = {
    'beside-peer': async () => {
      const { besidePeer } = await import('./engine/beside-peer.ts');
      return () => besidePeer(peer);
    },
    'busy-process': async () => (await import('./engine/busy-process.ts')).busyProcess,
    speculation: async () => (await import('./engine/speculation.ts')).speculation,
    attention: async () => (await import('./engine/attention.ts')).attentionFormats,
  };
  return runParts('engine', parts, names);
}

function readArguments(argv: readonly string[]): { names: string[]; peer: string | null } {
  try {
    const options = { 'peer-llama-cpp': { type: 'string' } } as const;
    const { positionals, values } = parseArgs({ args: [...argv], options, allowPositionals: true });
    return { names: positionals, peer: values['peer-llama-cpp'] ?? null };
  } catch (error) {
    throw new ConfigError(error instanceof Error ? error.message : String(error));
  }
}
