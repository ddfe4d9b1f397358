/**
 * `npm run bench -- engine [PART...] [--peer-llama-cpp DIR] [--peer-node-llama-cpp DIR] [--peer-vllm PYTHON]
 * [--precision Q8_0|Q4_0] [--path PATH]`: what the engine is worth on this CPU, one file a question under engine/. The parts
 * that need a peer say SKIPPED without its place; they take `--rounds N`, too. `adaptive` (or --adaptive) takes 25 minutes and runs only where it is named:
 * `--rounds N` measures so many of its missing rounds and keeps the others, `--report` takes the seeds of the report.
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
  const roundCount = readRounds(flags.rounds);
  const options = { precisions: precisionsOf(flags.precision), path: flags.path ?? null, roundCount };
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
    'attention-tunings': async () => (await import('./engine/attention-tunings.ts')).attentionTunings,
    switch: async () => (await import('./engine/switch.ts')).liveSwitches,
    prepare: async () => (await import('./engine/switch.ts')).preparedKernels,
    'mapped-weights': async () => (await import('./engine/mapped-weights.ts')).mappedWeights,
    adaptive: async () => {
      const { adaptive } = await import('./engine/adaptive.ts');
      return () => adaptive({ roundCount, seeds: flags.report === true ? 'report' : 'work' });
    },
  };
  const unasked = Object.keys(parts).filter((name) => name !== 'adaptive');
  return runParts('engine', parts, names.length > 0 ? names : unasked);
}

function readArguments(argv: readonly string[]) {
  const flag = { type: 'string' } as const;
  const isAsked = { type: 'boolean' } as const;
  try {
    const options = {
      ...{ 'peer-llama-cpp': flag, 'peer-node-llama-cpp': flag, 'peer-vllm': flag },
      ...{ precision: flag, path: flag },
      ...{ adaptive: isAsked, rounds: flag, report: isAsked },
    };
    const { positionals, values } = parseArgs({ args: [...argv], options, allowPositionals: true });
    return { names: [...positionals, ...(values.adaptive ? ['adaptive'] : [])], flags: values };
  } catch (error) {
    throw new ConfigError(error instanceof Error ? error.message : String(error));
  }
}

function readRounds(rounds: string | undefined): number | null {
  const count = rounds === undefined ? null : Number(rounds);
  if (count === null || (Number.isInteger(count) && count >= 0)) return count;
  throw new ConfigError(`--rounds must be a whole number of 0 or more, not ${rounds}.`);
}
