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
  readonly decodeContextTokens: number;
  readonly prefillAttention: number;
  readonly runningCount: number;
  readonly waitingCount: number;
  readonly kvUsedBlockCount: number;
  readonly kvBlockCount: number;
  readonly preemptionCount: number;
  /** Tokens that came from the prefix cache for sequences first scheduled in this step. */
  readonly cachedTokenCount: number;
  readonly emittedTokenCount: number;
  /** Gaps between a sequence's tokens, over emitted tokens of streamed sequences that were not a first token; 0 when none. */
  readonly itlMeanMs: number;
  readonly itlMaxMs: number;
  readonly itlTokenCount: number;
  readonly deviceMs: number;
  /** Composing and settling, on the worker's event loop. */
  readonly scheduleMs: number;
  /** 0 where no fit existed. */
  readonly predictedMs: number;
  readonly fitId: string;
  readonly foreignCpuShare: number;
  readonly prefillDeviceMs: number;
  readonly decodeDeviceMs: number;
  readonly speculationWasteDeviceMs: number;
  readonly recomputeDeviceMs: number;
}
