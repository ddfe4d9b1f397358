/**
 * What the step loop runs on: batches of entries in, sampled tokens and measured device ms out. cpu-device.ts and
 * cuda-device.ts bind it to the native kernels. Owns no schedule.
 */
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import type { BatchEntry } from '@variator/scheduler/batch';
import type { TokenLogprobs } from '@variator/scheduler/sequence';
import type { DeviceTelemetry } from '../fleet/link-frames.ts';

export interface DeviceResult {
  /** One per entry, -1 where nothing was sampled. */
  readonly sampledTokenIds: Int32Array;
  /** As StepResult has them; absent where no entry has drafts. */
  readonly afterDraftTokenIds?: readonly (Int32Array | null)[];
  /** One list per entry, as StepResult has them; absent where no entry wants any. */
  readonly logprobs?: readonly (readonly TokenLogprobs[])[];
  readonly deviceMs: number;
  readonly foreignCpuShare: number;
}

export interface Device {
  readonly envelope: Envelope;
  /** KV blocks apart from the scheduler's, for calibration and equality checks. */
  readonly scratchBlockIds: readonly number[];
  /** Makes the path's kernels ready, off the event loop; idempotent. */
  prepare(path: ExecutionPath): Promise<{ prepareMs: number }>;
  /**
   * Brings the scheduler's KV blocks into the format of the path's attention, between two steps. The blocks named
   * (ascending) keep their contents, rounded; the others are lost.
   */
  keepKvFor(path: ExecutionPath, blockIds: readonly number[]): Promise<{ convertMs: number }>;
  /**
   * One step at a time; the entries' block tables name the scheduler's blocks or the scratch ones.
   * @throws NativeError when the entries break the border's contract; DeviceLostError where the device fails from now on
   */
  run(
    path: ExecutionPath,
    entries: readonly BatchEntry[],
    blocks: 'scheduled' | 'scratch',
  ): Promise<DeviceResult>;
  /**
   * Measures kernels that were made ready while it served, one short call of some 100 ms, for the steps to come. Between two
   * steps, while nothing runs. @returns whether it did: false where all is measured
   */
  measureAside(): Promise<boolean>;
  /** Asked for once a second at most, beside the steps; absent where a device has nothing to say. */
  telemetry?(): Promise<DeviceTelemetry>;
  close(): void;
}
