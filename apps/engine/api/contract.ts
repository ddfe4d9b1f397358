/**
 * The tRPC API's shapes: one interface a procedure's output. router.ts serves exactly these; dashboard, optimizer and
 * scripts import the types. Numbers are plain JSON (no transformer); times are epoch milliseconds.
 *
 * Procedures (q = query, m = mutation):
 *   overview.summary q {windowMs}              -> OverviewSummary
 *   overview.series  q {fromMs, toMs, bucketMs}-> OverviewSeries
 *   regimes.list     q {fromMs, toMs}          -> RegimeMark[]
 *   costs.summary    q {fromMs, toMs}          -> CostSummary
 *   costs.byTenant   q {fromMs, toMs}          -> TenantCost[]
 *   costs.ledger     q {fromMs, toMs, by}      -> CostLedger, the 100 dearest groups
 *   objectives.get   q -> Policy               objectives.set m Partial<Policy> -> Policy
 *   workers.list     q -> WorkerSummary[]      workers.switchTo m {workerId, path: string} -> {pathId}
 *   paths.list       q -> PathSummary[]
 *   fits.list        q -> StepTimeFit[]        fits.publish m StepTimeFit -> {fitId}
 *   fits.predictions q {fromMs, toMs, kernels: KernelsKey | null} -> FitPredictions, at most 1500 steps drawn
 *   regimes.publish  m RegimeMark -> {regimeId}
 *   calibration.run  m {workerId, path, cases} -> {stepCount, deviceMs}
 *   proposals.list   q {limit} -> Proposal[]   proposals.create m ProposalDraft -> Proposal
 *   proposals.approve m {proposalId} -> {rolloutId}       proposals.reject m {proposalId, reason} -> Proposal
 *   proposals.withdraw m {proposalId, reason} -> Proposal, superseded where it was open
 *   rollouts.list    q {limit} -> RolloutView[]           rollouts.progress q {rolloutId} -> RolloutView
 *   rollouts.rollBack m {rolloutId} -> RolloutView
 *   rollouts.killSwitch q -> KillSwitch                   rollouts.setKillSwitch m {isOn, reason} -> KillSwitch
 *   ledger.list      q {limit} -> LedgerEntry[]
 */
import type { KernelsInSpan } from '@variator/clickhouse/queries/kernels-in-span';
import type { StepPredictions } from '@variator/clickhouse/queries/step-predictions';
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import type { Capacity, PricedGroup } from '@variator/optimizer/cost-ledger';
import type { ServiceTier } from '@variator/scheduler/sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';
import type { DeviceTelemetry } from '../fleet/link-frames.ts';

export interface OverviewSummary {
  readonly now: number;
  readonly isReady: boolean;
  readonly unreadyReason: string;
  readonly modelId: string;
  readonly livePathId: string;
  readonly livePath: ExecutionPath | null;
  readonly regimeName: string;
  /** Names of the simulated devices among the workers, each once: what they answer and how fast is nobody's. */
  readonly simulatedDeviceNames: readonly string[];
  /** Names of the emulated devices among the workers, each once: they compute the model, at the speed of no GPU. */
  readonly emulatedDeviceNames: readonly string[];
  readonly requestCount: number;
  readonly errorCount: number;
  readonly outputTokensPerSecond: number | null;
  readonly inputTokensPerSecond: number | null;
  readonly ttftP95Ms: number | null;
  readonly itlP95Ms: number | null;
  readonly costUsdPerMillionTokens: number | null;
  /** 0..1. */
  readonly sloAttainment: number | null;
  readonly runningCount: number;
  /** Sequences that may run at once on all workers together. */
  readonly mostRunningCount: number;
  readonly waitingCount: number;
  /** Rows the recorder had to drop since the gateway started. */
  readonly droppedRowCount: number;
  /** Epoch ms of the newest stored step; null before any. */
  readonly lastStepAt: number | null;
  /** '' while ClickHouse answers; otherwise what is missing, for people. */
  readonly telemetryFault: string;
}

/** Missing data is null, never a zero that was not measured. */
export interface SeriesPoint {
  readonly at: number;
  readonly requestCount: number;
  readonly outputTokensPerSecond: number | null;
  readonly inputTokensPerSecond: number | null;
  readonly ttftP50Ms: number | null;
  readonly ttftP95Ms: number | null;
  readonly ttftP99Ms: number | null;
  readonly itlP50Ms: number | null;
  readonly itlP95Ms: number | null;
  readonly itlP99Ms: number | null;
  readonly costUsdPerMillionTokens: number | null;
  readonly sloAttainment: number | null;
}

export interface PathSpan {
  readonly pathId: string;
  readonly fromMs: number;
  readonly toMs: number;
}

export interface OverviewSeries {
  readonly bucketMs: number;
  readonly points: readonly SeriesPoint[];
  readonly regimes: readonly RegimeMark[];
  readonly rollouts: readonly { readonly at: number; readonly label: string; readonly outcome: string }[];
  readonly paths: readonly PathSpan[];
  readonly objectives: { readonly ttftMs: number; readonly itlMs: number };
}

export interface RegimeMark {
  readonly regimeId: string;
  readonly name: string;
  readonly startedAt: number;
  readonly detectedAt: number;
  /** null while it lasts. */
  readonly endedAt: number | null;
  readonly isConfirmed: boolean;
}

export interface CostSummary {
  readonly deviceUsdPerHour: number;
  readonly deviceMs: number;
  readonly prefillDeviceMs: number;
  readonly decodeDeviceMs: number;
  readonly speculationWasteDeviceMs: number;
  readonly recomputeDeviceMs: number;
  readonly calibrationDeviceMs: number;
  readonly promptTokenCount: number;
  readonly completionTokenCount: number;
  readonly requestCount: number;
  readonly costUsdPerMillionTokens: number | null;
  readonly deviceMsPerRequest: number | null;
}

/** What a tenant used on one model and tier. */
export interface TenantCost {
  readonly tenant: string;
  readonly modelId: string;
  readonly serviceTier: ServiceTier;
  readonly requestCount: number;
  /** Cached ones included. */
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
  readonly deviceMs: number;
  /** Of this device time alone: idle time and calibration are nobody's. */
  readonly deviceUsd: number;
}

export type CostGrouping = 'model' | 'tier' | 'tenant' | 'session' | 'program';

/** All device time of a span, and whose it was. */
export interface CostLedger extends Capacity {
  readonly by: CostGrouping;
  readonly deviceUsdPerHour: number;
  /** What a KV block costs for a second of being held idle; 0 while none had to leave. */
  readonly kvDeviceMsPerBlockSecond: number;
  /** The dearest first; of the requests that ended in the span. */
  readonly groups: readonly (Omit<PricedGroup, 'deviceMsByWorker'> & {
    /** Device ms of the KV blocks that waited for its sessions' next turns, of the newest 48 h; null without a worker. */
    readonly kvResidencyMs: number | null;
  })[];
}

/** What steps and fits are kept by. */
export interface KernelsKey {
  readonly deviceKind: string;
  readonly modelHash: string;
  readonly kernelsId: string;
}

/** Served steps beside what the fit of their moment foretold; of one pair of kernels and model. */
export interface FitPredictions extends StepPredictions {
  /** The part of the span that was looked at. */
  readonly fromMs: number;
  readonly toMs: number;
  /** All that served in it, most steps first. */
  readonly kernels: readonly (KernelsInSpan & {
    /** null where no present worker has them. */
    readonly path: Pick<ExecutionPath, 'linear' | 'attention' | 'threadCount'> | null;
    readonly isLive: boolean;
  })[];
  /** Those that were asked for, else live ones, else the first; null where nothing ran. */
  readonly shown: KernelsKey | null;
  /** In use for them; its band is the one that the shares are of. */
  readonly fit: Pick<StepTimeFit, 'fitId' | 'fittedAt' | 'sampleCount' | 'heldOutMape' | 'logBand90'> | null;
}

export interface WorkerSummary {
  readonly workerId: string;
  readonly pid: number;
  readonly envelope: Envelope;
  readonly path: ExecutionPath;
  readonly pathId: string;
  readonly kernelsId: string;
  readonly joinedAt: number;
  readonly lastHeardAt: number;
  readonly runningCount: number;
  readonly waitingCount: number;
  readonly kvUsedBlockCount: number;
  /** What a GPU's driver said a second ago; null where there is none. */
  readonly deviceTelemetry: DeviceTelemetry | null;
}

export interface PathSummary {
  readonly name: string;
  readonly pathId: string;
  readonly path: ExecutionPath;
  readonly isLive: boolean;
}
