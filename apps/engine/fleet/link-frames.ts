/**
 * Every frame of the link between gateway and worker. The worker dials (a Unix socket, or TLS from another machine) and
 * obeys one gateway. Frames are JSON behind a 4-byte big-endian length, at most MAX_FRAME_BYTES. Sequences and events cross,
 * never steps. Ages cross as durations, never as timestamps of the other side's clock.
 */
import type { StepRow } from '@variator/clickhouse/step-row';
import type { Envelope, ExecutionPath } from '@variator/kernels/execution-path';
import type {
  Account,
  EndedSequence,
  SequenceSpec,
  SequenceStart,
  TokenEvent,
} from '@variator/scheduler/sequence';
import type { StepTimeFit } from '@variator/scheduler/step-time';

/** Raised with every change that the other side must know of; both sides are of one version. */
export const LINK_VERSION = 6;
export const MAX_FRAME_BYTES = 32 * 1024 * 1024;
/** Before it is known who it is. */
export const MAX_HELLO_BYTES = 64 * 1024;

/** A block of a canary's plan: run this path for so long. */
export interface PathBlock {
  readonly pathId: string;
  readonly durationMs: number;
}

/** One synthetic batch shape to time on scratch blocks. */
export interface CalibrationCase {
  readonly decodeSequenceCount: number;
  readonly decodeContextTokens: number;
  readonly prefillTokens: number;
  readonly prefillContextTokens: number;
}

export interface CheckPrompt {
  readonly promptTokenIds: readonly number[];
  readonly maxTokens: number;
  readonly temperature: number;
  readonly seed: number;
}

/** What a GPU's driver says of it now; null where it does not. */
export interface DeviceTelemetry {
  readonly smClockMhz: number | null;
  readonly memoryClockMhz: number | null;
  readonly powerWatts: number | null;
  /** Since its driver was loaded. */
  readonly energyJoules: number | null;
  readonly temperatureCelsius: number | null;
  readonly memoryUsedBytes: number | null;
  readonly memoryBytes: number | null;
}

export type WorkerFrame =
  | {
      readonly type: 'hello';
      readonly version: number;
      readonly workerId: string;
      readonly bootId: string;
      readonly pid: number;
      readonly envelope: Envelope;
      readonly path: ExecutionPath;
    }
  /** One frame a step, all sequences, with what each was charged so far: a lost worker's last word on its accounts. */
  | {
      readonly type: 'tokens';
      readonly stepId: number;
      readonly events: readonly TokenEvent[];
      readonly accounts: readonly Account[];
      readonly starts: readonly SequenceStart[];
    }
  | { readonly type: 'ended'; readonly ended: EndedSequence; readonly pathId: string }
  | { readonly type: 'stepRows'; readonly rows: readonly StepRow[] }
  | { readonly type: 'blocks'; readonly entered: readonly string[]; readonly left: readonly string[] }
  | {
      readonly type: 'heartbeat';
      readonly runningCount: number;
      readonly waitingCount: number;
      readonly kvUsedBlockCount: number;
      readonly pathId: string;
      /** null where the device has no driver that says anything. */
      readonly deviceTelemetry: DeviceTelemetry | null;
    }
  /** The live path changed at a step border. */
  | {
      readonly type: 'pathChanged';
      readonly path: ExecutionPath;
      readonly stepId: number;
      readonly rolloutId: string;
    }
  /** Its kernels could not be made ready; the path before stays. */
  | { readonly type: 'switchRefused'; readonly pathId: string; readonly fault: string }
  | {
      readonly type: 'prepared';
      readonly callId: string;
      readonly faults: readonly string[];
      readonly prepareMs: number;
    }
  | {
      readonly type: 'checked';
      readonly callId: string;
      readonly outputs: readonly (readonly number[])[];
      readonly fault: string;
    }
  | {
      readonly type: 'calibrated';
      readonly callId: string;
      readonly stepCount: number;
      readonly deviceMs: number;
      readonly fault: string;
    }
  /** The plan ran out or was replaced. */
  | { readonly type: 'alternated'; readonly rolloutId: string; readonly completedBlockCount: number };

export type GatewayFrame =
  /** In answer to hello, and the last one. `isFinal`: asking again changes nothing. */
  | { readonly type: 'refused'; readonly reason: string; readonly isFinal: boolean }
  /** In answer to hello, and from then on about once a second. */
  | { readonly type: 'alive' }
  | { readonly type: 'submit'; readonly spec: SequenceSpec; readonly ageMs: number }
  | { readonly type: 'cancel'; readonly sequenceId: string; readonly reason: 'cancelled' | 'stop' }
  | { readonly type: 'useFit'; readonly fit: StepTimeFit }
  | {
      readonly type: 'calibrate';
      readonly callId: string;
      readonly path: ExecutionPath;
      readonly cases: readonly CalibrationCase[];
    }
  | { readonly type: 'prepare'; readonly callId: string; readonly path: ExecutionPath }
  | { readonly type: 'switchTo'; readonly path: ExecutionPath; readonly rolloutId: string }
  /** Runs the blocks in order, then goes back to `path` (the incumbent). An empty list ends a plan now. */
  | {
      readonly type: 'alternate';
      readonly rolloutId: string;
      readonly incumbent: ExecutionPath;
      readonly candidate: ExecutionPath;
      readonly blocks: readonly PathBlock[];
    }
  /** Generates from the prompts on scratch blocks with `path`, beside live work; answers `checked`. */
  | {
      readonly type: 'check';
      readonly callId: string;
      readonly path: ExecutionPath;
      readonly prompts: readonly CheckPrompt[];
    }
  | { readonly type: 'drain' };

/** What a worker that has joined is told to do. */
export type WorkFrame = Exclude<GatewayFrame, { readonly type: 'refused' | 'alive' }>;
