/** Builds the telemetry row of one step from what was scheduled, measured and settled. Called by the step loop. */
import type { StepRow } from '@variator/clickhouse/step-row';
import {
  type Envelope,
  kernelsId,
  kvBlockCountOf,
  numericsId,
  pathId,
} from '@variator/kernels/execution-path';
import type { BatchEntry, StepSettlement } from '@variator/scheduler/batch';
import type { StepFeatures } from '@variator/scheduler/step-time';
import type { StepEnergy } from './device-watch.ts';
import type { PathPlan } from './path-plan.ts';

export interface WorkerIdentity {
  readonly workerId: string;
  readonly bootId: string;
  readonly envelope: Envelope;
}

export interface MeasuredStep {
  readonly stepId: number;
  readonly startedAt: number;
  readonly kind: StepRow['kind'];
  readonly features: StepFeatures;
  readonly entries: readonly BatchEntry[];
  readonly waitingTokenCount: number;
  readonly deviceMs: number;
  readonly wallMs: number;
  readonly scheduleMs: number;
  readonly foreignCpuShare: number;
  readonly energy: StepEnergy;
  readonly isSettling: boolean;
}

/** What a calibration or check step has in place of a settlement: nobody's tokens, nobody's charge. */
const ownAccount: Omit<
  StepSettlement,
  'stepId' | 'events' | 'accounts' | 'starts' | 'ended' | 'runningCount' | 'waitingCount' | 'kvUsedBlockCount'
> = {
  charge: { prefillDeviceMs: 0, decodeDeviceMs: 0, speculationWasteDeviceMs: 0, recomputeDeviceMs: 0 },
  predictedMs: 0,
  fitId: '',
  leftBlockHashes: [],
  enteredBlockHashes: [],
  cachedTokenCount: 0,
  preemptionCount: 0,
  emittedTokenCount: 0,
  draftedTokenCount: 0,
  acceptedDraftCount: 0,
  firstTokenCount: 0,
  itlMeanMs: 0,
  itlMaxMs: 0,
  itlTokenCount: 0,
};

export function stepRow(
  worker: WorkerIdentity,
  plan: Pick<PathPlan, 'live' | 'rolloutId' | 'blockIndex'>,
  step: MeasuredStep,
  settled:
    | StepSettlement
    | { readonly runningCount: number; readonly waitingCount: number; readonly kvUsedBlockCount: number },
): StepRow {
  const books = { ...ownAccount, ...settled };
  return {
    startedAt: step.startedAt,
    workerId: worker.workerId,
    bootId: worker.bootId,
    stepId: step.stepId,
    kind: step.kind,
    deviceKind: worker.envelope.deviceKind,
    modelId: worker.envelope.modelId,
    modelHash: worker.envelope.modelHash,
    pathId: pathId(plan.live),
    kernelsId: kernelsId(plan.live),
    numericsId: numericsId(plan.live),
    rolloutId: plan.rolloutId,
    blockIndex: plan.blockIndex,
    isSettling: step.isSettling,
    ...step.features,
    ...prefillShape(step.entries),
    runningCount: books.runningCount,
    waitingCount: books.waitingCount,
    waitingTokenCount: step.waitingTokenCount,
    kvUsedBlockCount: books.kvUsedBlockCount,
    kvBlockCount: kvBlockCountOf(worker.envelope, plan.live),
    evictedBlockCount: books.leftBlockHashes.length,
    preemptionCount: books.preemptionCount,
    cachedTokenCount: books.cachedTokenCount,
    emittedTokenCount: books.emittedTokenCount,
    draftedTokenCount: books.draftedTokenCount,
    acceptedDraftCount: books.acceptedDraftCount,
    itlMeanMs: books.itlMeanMs,
    itlMaxMs: books.itlMaxMs,
    itlTokenCount: books.itlTokenCount,
    deviceMs: step.deviceMs,
    wallMs: step.wallMs,
    scheduleMs: step.scheduleMs,
    predictedMs: books.predictedMs,
    fitId: books.fitId,
    foreignCpuShare: step.foreignCpuShare,
    ...step.energy,
    ...books.charge,
  };
}

/** What ForwardPassMetrics says of prefill beyond the sums that the step model uses. */
function prefillShape(
  entries: readonly BatchEntry[],
): Pick<StepRow, 'prefillContextTokens' | 'prefillLengthVariance'> {
  const prefills = entries.filter(({ kind }) => kind !== 'decode');
  const mean =
    prefills.reduce((sum, { tokenIds }) => sum + tokenIds.length, 0) / Math.max(1, prefills.length);
  return {
    prefillContextTokens: prefills.reduce((sum, { contextLength }) => sum + contextLength, 0),
    prefillLengthVariance:
      prefills.reduce((sum, { tokenIds }) => sum + (tokenIds.length - mean) ** 2, 0) /
      Math.max(1, prefills.length),
  };
}
