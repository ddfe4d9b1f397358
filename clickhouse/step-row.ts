/**
 * One row per step of a worker. Produced by apps/engine/worker, stored in table `steps`, read by the queries. Column
 * names are these names. Times are epoch milliseconds here and DateTime64(6, 'UTC') in the table.
 */
export interface StepRow {
  readonly startedAt: number;
  readonly workerId: string;
  /** Changes with every start of the worker process; (bootId, stepId) is unique. */
  readonly bootId: string;
  readonly stepId: number;
  /** `serve` computes clients' tokens, `calibration` synthetic ones, `check` the equality check's. */
  readonly kind: 'serve' | 'calibration' | 'check';
  readonly deviceKind: string;
  readonly modelId: string;
  readonly modelHash: string;
  readonly pathId: string;
  readonly kernelsId: string;
  readonly numericsId: string;
  /** '' outside a canary. */
  readonly rolloutId: string;
  /** Block of the canary's plan, -1 outside one. */
  readonly blockIndex: number;
  /** True for steps after a switch whose state the new limits did not make; judges leave them out. */
  readonly isSettling: boolean;
  readonly tokenCount: number;
  readonly decodeSequenceCount: number;
  readonly prefillSequenceCount: number;
  readonly prefillTokenCount: number;
  /** Tokens already in the KV cache of prefilling sequences (ForwardPassMetrics: sum_prefill_kv_tokens). */
  readonly prefillContextTokens: number;
  /** Of the chunks' lengths (ForwardPassMetrics: var_prefill_length). */
  readonly prefillLengthVariance: number;
  readonly decodeContextTokens: number;
  readonly prefillAttention: number;
  readonly runningCount: number;
  readonly waitingCount: number;
  /** Tokens of waiting sequences, cached ones included (ForwardPassMetrics: queued sum_prefill_tokens). */
  readonly waitingTokenCount: number;
  readonly kvUsedBlockCount: number;
  readonly kvBlockCount: number;
  /** Blocks that left the prefix cache while it was composed. */
  readonly evictedBlockCount: number;
  readonly preemptionCount: number;
  /** Tokens that came from the prefix cache for sequences first scheduled in this step. */
  readonly cachedTokenCount: number;
  readonly emittedTokenCount: number;
  /** Guesses that it verified, and those of them that were right. */
  readonly draftedTokenCount: number;
  readonly acceptedDraftCount: number;
  /** Gaps between a sequence's tokens, over emitted tokens of streamed sequences that were not a first token; 0 when none. */
  readonly itlMeanMs: number;
  readonly itlMaxMs: number;
  readonly itlTokenCount: number;
  readonly deviceMs: number;
  /** From composing to settled (ForwardPassMetrics: wall_time). */
  readonly wallMs: number;
  /** Composing and settling, on the worker's event loop. */
  readonly scheduleMs: number;
  /** 0 where no fit existed. */
  readonly predictedMs: number;
  readonly fitId: string;
  readonly foreignCpuShare: number;
  /** Of the device, since the row before that has any, its pauses included: rows add up to all of it. 0 where it does not say. */
  readonly energyJoules: number;
  /** As last told; 0 where it does not say. */
  readonly powerWatts: number;
  readonly smClockMhz: number;
  readonly prefillDeviceMs: number;
  readonly decodeDeviceMs: number;
  readonly speculationWasteDeviceMs: number;
  readonly recomputeDeviceMs: number;
}

const kinds: Record<keyof StepRow, 'number' | 'string' | 'boolean'> = {
  startedAt: 'number',
  workerId: 'string',
  bootId: 'string',
  stepId: 'number',
  kind: 'string',
  deviceKind: 'string',
  modelId: 'string',
  modelHash: 'string',
  pathId: 'string',
  kernelsId: 'string',
  numericsId: 'string',
  rolloutId: 'string',
  blockIndex: 'number',
  isSettling: 'boolean',
  tokenCount: 'number',
  decodeSequenceCount: 'number',
  prefillSequenceCount: 'number',
  prefillTokenCount: 'number',
  prefillContextTokens: 'number',
  prefillLengthVariance: 'number',
  decodeContextTokens: 'number',
  prefillAttention: 'number',
  runningCount: 'number',
  waitingCount: 'number',
  waitingTokenCount: 'number',
  kvUsedBlockCount: 'number',
  kvBlockCount: 'number',
  evictedBlockCount: 'number',
  preemptionCount: 'number',
  cachedTokenCount: 'number',
  emittedTokenCount: 'number',
  draftedTokenCount: 'number',
  acceptedDraftCount: 'number',
  itlMeanMs: 'number',
  itlMaxMs: 'number',
  itlTokenCount: 'number',
  deviceMs: 'number',
  wallMs: 'number',
  scheduleMs: 'number',
  predictedMs: 'number',
  fitId: 'string',
  foreignCpuShare: 'number',
  energyJoules: 'number',
  powerWatts: 'number',
  smClockMhz: 'number',
  prefillDeviceMs: 'number',
  decodeDeviceMs: 'number',
  speculationWasteDeviceMs: 'number',
  recomputeDeviceMs: 'number',
};
const columns = Object.entries(kinds);
const MOST_TEXT = 500;

/** Whether a value from another process is a row that the table takes: one that is not would hold up all others with it. */
export function isStepRow(value: unknown): value is StepRow {
  if (typeof value !== 'object' || value === null) return false;
  const row = value as Record<string, unknown>;
  return (
    Object.keys(row).length === columns.length &&
    columns.every(([column, kind]) => {
      const cell = row[column];
      if (typeof cell !== kind) return false;
      if (typeof cell === 'number') return Number.isFinite(cell) && cell >= -1;
      return typeof cell !== 'string' || cell.length <= MOST_TEXT;
    }) &&
    (row.kind === 'serve' || row.kind === 'calibration' || row.kind === 'check')
  );
}
