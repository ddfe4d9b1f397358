/**
 * What the step loop runs on: batches of entries in, sampled tokens and measured device ms out. cpu-device.ts binds it
 * to the native kernels. Owns no schedule.
 */
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import type { BatchEntry } from '@variator/scheduler/batch';
import type { TokenLogprobs } from '@variator/scheduler/sequence';

export interface DeviceResult {
  /** One per entry, -1 where nothing was sampled. */
  readonly sampledTokenIds: Int32Array;
  /** One list per entry, as StepResult has them; absent where no entry wants any. */
  readonly logprobs?: readonly (readonly TokenLogprobs[])[];
  readonly deviceMs: number;
  readonly foreignCpuShare: number;
}

export interface Device {
  readonly envelope: Envelope;
  /** KV blocks outside the scheduler's pool, for calibration and equality checks. */
  readonly scratchBlockIds: readonly number[];
  /** Makes the path's kernels ready, off the event loop; idempotent. */
  prepare(path: ExecutionPath): Promise<{ prepareMs: number }>;
  /** One step at a time. @throws NativeError when the entries break the border's contract */
  run(path: ExecutionPath, entries: readonly BatchEntry[]): Promise<DeviceResult>;
  close(): void;
}
