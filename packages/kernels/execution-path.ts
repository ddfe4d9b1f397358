/**
 * Envelope (fixed when a worker starts) and execution path (may change between two steps) as plain, versioned, diffable
 * data. Used by scheduler, worker, optimizer, control plane and the command line. Decides nothing about when to switch.
 */
import { createHash } from 'node:crypto';
import {
  type AttentionVariantId,
  attentionVariants,
  cudaAttentionVariants,
  cudaLinearVariants,
  type LinearVariantId,
  splitTokensRange,
  splitTokensRangeOf,
  variantOf,
} from './catalogue.ts';
import { readCudaTiles } from './cuda-variants.ts';
import { MEASURED_TILES, readTiles } from './tiles.ts';

/** A legal choice of kernel variants plus batch limits. */
export interface ExecutionPath {
  readonly linear: LinearVariantId;
  readonly attention: AttentionVariantId;
  /** Threads that compute a step; 1 to `Envelope.threadCount`. */
  readonly threadCount: number;
  /** Most tokens one step may compute, prefill and decode together. */
  readonly tokenBudget: number;
  /** Most sequences that may run at once. */
  readonly maxRunningCount: number;
  /** Most guesses at its next tokens that a decoding sequence has verified in a step; 0 for no speculation. */
  readonly draftTokenCount: number;
  /**
   * Parameters of the kernels of linear layers and attention: `measured` when the worker started, `prior` from sizes alone,
   * or settings over what was measured (`readTiles` of tiles.ts, on a GPU `readCudaTiles`). Changes no bit.
   */
  readonly tiles: string;
  /**
   * Positions of a split, the pieces that attention takes a context in; a power of two of `splitTokensRange`. Changes bits,
   * being the order of sums; a row's bits do not depend on what is computed beside it under any.
   */
  readonly splitTokens: number;
}

/** A path that was written down before paths had their later settings means what was fixed then. */
export const completedPath = (path: ExecutionPath): ExecutionPath => ({
  ...path,
  draftTokenCount: path.draftTokenCount ?? 0,
  tiles: path.tiles ?? MEASURED_TILES,
  splitTokens: path.splitTokens ?? splitTokensRange.usual,
});

/** What the speed of this machine was measured to be when the worker started; bytes and operations a second, 0 where unknown. */
export interface MachineProbe {
  /** Of a GPU its name, and where the figures come from when they were not measured. */
  readonly cpuModel: string;
  readonly coreCount: number;
  readonly features: readonly string[];
  readonly readBytesPerSecond: number;
  /** Of products summed in float32: a GPU's tensor cores multiply bf16. */
  readonly float32FlopsPerSecond: number;
  readonly int8OpsPerSecond: number;
}

/** What was fixed when a worker started. */
export interface Envelope {
  readonly deviceKind: string;
  readonly deviceName: string;
  readonly modelId: string;
  /** First 16 hex digits of a SHA-256 over the model's weights and configuration identity. */
  readonly modelHash: string;
  readonly linearVariants: readonly LinearVariantId[];
  readonly attentionVariants: readonly AttentionVariantId[];
  readonly threadCount: number;
  /** Blocks in the format that needs most memory; `kvBlockCountOf` says how many a path has. */
  readonly kvBlockCount: number;
  /** Blocks that the same memory holds, by attention variant; one that is not named has `kvBlockCount`. */
  readonly kvBlockCounts: Readonly<Partial<Record<AttentionVariantId, number>>>;
  /** Tokens a KV block holds. */
  readonly kvBlockSize: number;
  readonly maxModelLenTokens: number;
  readonly maxTokenBudget: number;
  readonly maxRunningCount: number;
  /** 0 where the device verifies no guesses. */
  readonly maxDraftTokenCount: number;
  readonly vocabularySize: number;
  readonly layerCount: number;
  readonly headCount: number;
  /** Elements of a key and of a value on average. */
  readonly headSize: number;
  /**
   * Parameters that a token's linear layers multiply with: embedding rows not counted, LM head counted, of a layer's
   * experts as many as a token is given.
   */
  readonly activeParameterCount: number;
  /**
   * Bytes of weights one step reads, by linear variant. With experts, what a step of one token reads: beyond it every
   * token may bring experts of its own, up to all of them.
   */
  readonly weightBytes: Readonly<Partial<Record<LinearVariantId, number>>>;
  /** Where there are `kvBlockCount` blocks. */
  readonly kvBytesPerToken: number;
  readonly probe: MachineProbe;
}

/** KV blocks that a worker has on this path. */
export function kvBlockCountOf(envelope: Envelope, { attention }: ExecutionPath): number {
  return envelope.kvBlockCounts[attention] ?? envelope.kvBlockCount;
}

/** Bytes of keys and values that a decode step reads for each token of context on this path. */
export function kvBytesPerTokenOf(envelope: Envelope, path: ExecutionPath): number {
  return (envelope.kvBytesPerToken * envelope.kvBlockCount) / kvBlockCountOf(envelope, path);
}

export class PathError extends Error {
  override readonly name = 'PathError';
}

const shortHash = (text: string): string => createHash('sha256').update(text).digest('hex').slice(0, 12);

/** Names a path by all of its settings. */
export function pathId(path: ExecutionPath): string {
  const settings = [path.linear, path.attention, path.threadCount, path.tokenBudget, path.maxRunningCount];
  // Settings that came later count where they are not what they were before: a path that was known keeps its name.
  const drafts = path.draftTokenCount > 0 ? [path.draftTokenCount] : [];
  return shortHash(JSON.stringify([...settings, ...drafts, ...tilesIn(path), ...splitsOf(path.splitTokens)]));
}

/** Names what decides how long a given batch takes: variants, threads, tiles and splits, not budgets. */
export function kernelsId(path: ExecutionPath): string {
  const settings = [path.linear, path.attention, path.threadCount];
  return shortHash(JSON.stringify(['kernels', ...settings, ...tilesIn(path), ...splitsIn(path)]));
}

const tilesIn = ({ tiles }: ExecutionPath): string[] => (tiles === MEASURED_TILES ? [] : [tiles]);
/** A string, so that no two settings make one list. */
const splitsOf = (splitTokens: number): string[] =>
  splitTokens === splitTokensRange.usual ? [] : [`splits of ${splitTokens}`];
const splitsIn = ({ attention, splitTokens }: ExecutionPath): string[] =>
  attention === 'attention.reference' ? [] : splitsOf(splitTokens);

/**
 * Names what decides bits; it salts the prefix cache's block hashes. Threads split rows, never sums; and the same panels
 * give the same bits by whatever instructions. Splits of a context are parts of a sum.
 */
export function numericsId(path: ExecutionPath): string {
  const bits = [variantOf(path.linear).bits, path.attention, ...splitsIn(path)];
  return shortHash(JSON.stringify(['numerics', ...bits]));
}

/** The named paths every worker offers. `reference` always exists: on a GPU it is what is batch-invariant throughout. */
export function namedPaths(
  envelope: Envelope,
): Record<'balanced' | 'latency' | 'throughput' | 'reference', ExecutionPath> {
  const fastest = envelope.linearVariants[0] ?? 'linear.reference';
  const isGpu = isForGpu(fastest);
  const known = [...attentionVariants, ...cudaAttentionVariants];
  const attention = known.find((id) => envelope.attentionVariants.includes(id));
  const limits = (tokenBudget: number, maxRunningCount: number): ExecutionPath => ({
    linear: fastest,
    attention: attention ?? 'attention.reference',
    threadCount: envelope.threadCount,
    tokenBudget: Math.min(tokenBudget, envelope.maxTokenBudget),
    maxRunningCount: Math.min(maxRunningCount, envelope.maxRunningCount),
    draftTokenCount: 0,
    tiles: MEASURED_TILES,
    splitTokens: splitTokensRange.usual,
  });
  if (isGpu) {
    // Weights are read in the time that hundreds of tokens take to multiply: limits are of another size than a CPU's.
    const exact = envelope.linearVariants.find((id) => variantOf(id).isBatchInvariant) ?? fastest;
    const fewRows = envelope.linearVariants.find((id) => !variantOf(id).isBatchInvariant) ?? fastest;
    return {
      balanced: limits(2048, 64),
      latency: { ...limits(512, 8), linear: fewRows },
      throughput: limits(8192, 256),
      reference: { ...limits(2048, 64), linear: exact },
    };
  }
  return {
    balanced: limits(128, 16),
    latency: limits(32, 8),
    throughput: limits(512, 32),
    reference: { ...limits(128, 16), linear: 'linear.reference', attention: 'attention.reference' },
  };
}

const isForGpu = (linear: LinearVariantId): boolean => cudaLinearVariants.some((id) => id === linear);

/**
 * Reads `NAME` or `NAME,setting=value,...`, e.g. `balanced,maxRunningCount=1`. The settings are those of ExecutionPath.
 * @throws PathError with a sentence that says what to change
 */
export function parsePath(text: string, envelope: Envelope): ExecutionPath {
  const [name = '', ...changes] = text.split(',').map((part) => part.trim());
  const named: Record<string, ExecutionPath> = namedPaths(envelope);
  const base = named[name];
  if (base === undefined) {
    throw new PathError(`There is no execution path "${name}"; there are ${Object.keys(named).join(', ')}.`);
  }
  const settings: Record<string, string | number> = { ...base };
  for (const change of changes) {
    const [, setting = '', value = ''] = /^([^=]*)=?(.*)$/.exec(change) ?? [];
    const before = settings[setting];
    if (before === undefined) {
      throw new PathError(
        `An execution path has no setting "${setting}"; it has ${Object.keys(base).join(', ')}.`,
      );
    }
    settings[setting] = typeof before === 'number' ? Number(value) : value;
  }
  const path = settings as unknown as ExecutionPath;
  const faults = pathFaults(path, envelope);
  if (faults.length > 0) throw new PathError(faults.join(' '));
  return path;
}

/** Why this path is not legal on a worker with this envelope, as sentences; empty when it is. */
export function pathFaults(path: ExecutionPath, envelope: Envelope): string[] {
  const faults: string[] = [];
  if (!envelope.linearVariants.includes(path.linear)) {
    faults.push(
      `${path.linear} cannot run on ${envelope.deviceName}; it can run ${envelope.linearVariants.join(', ')}.`,
    );
  }
  if (!envelope.attentionVariants.includes(path.attention)) {
    faults.push(`${path.attention} cannot run on ${envelope.deviceName}.`);
  }
  const ranges = [
    ['threadCount', path.threadCount, 1, envelope.threadCount],
    ['tokenBudget', path.tokenBudget, 1, envelope.maxTokenBudget],
    ['maxRunningCount', path.maxRunningCount, 1, envelope.maxRunningCount],
    ['draftTokenCount', path.draftTokenCount, 0, envelope.maxDraftTokenCount],
  ] as const;
  for (const [setting, value, least, most] of ranges) {
    if (!Number.isInteger(value) || value < least || value > most) {
      faults.push(`${setting} must be a whole number from ${least} to ${most}, not ${value}.`);
    }
  }
  const { least, most } = splitTokensRangeOf(path.attention);
  const { splitTokens } = path;
  if (!Number.isInteger(Math.log2(splitTokens)) || splitTokens < least || splitTokens > most) {
    faults.push(`splitTokens must be a power of two from ${least} to ${most}, not ${splitTokens}.`);
  }
  const tiles = isForGpu(path.linear) ? readCudaTiles(path.tiles) : readTiles(path.tiles);
  if (typeof tiles === 'string') faults.push(tiles);
  if (faults.length === 0 && path.tokenBudget < path.maxRunningCount) {
    faults.push(
      `tokenBudget ${path.tokenBudget} is below maxRunningCount ${path.maxRunningCount}: every running sequence needs one token a step.`,
    );
  }
  return faults;
}

export interface PathChange {
  readonly setting: keyof ExecutionPath;
  readonly from: string | number;
  readonly to: string | number;
}

/** All of them, in declaration order. */
export const pathSettings = [
  'linear',
  'attention',
  'threadCount',
  'tokenBudget',
  'maxRunningCount',
  'draftTokenCount',
  'tiles',
  'splitTokens',
] as const satisfies readonly (keyof ExecutionPath)[];

/** The settings in which two paths differ, in declaration order. */
export function diffPaths(from: ExecutionPath, to: ExecutionPath): PathChange[] {
  return pathSettings.flatMap((setting) =>
    from[setting] === to[setting] ? [] : [{ setting, from: from[setting], to: to[setting] }],
  );
}
