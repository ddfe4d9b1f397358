/**
 * The nouns of background work: a stored file, a batch over one, what is wrong with its input, what a line yielded. Plain
 * data; times are epoch milliseconds. OpenAI's shapes are made of them in http/, rows in batches-store.ts.
 */
export type BatchEndpoint = '/v1/chat/completions' | '/v1/completions';

export type BatchStatus =
  | 'validating'
  | 'failed'
  | 'in_progress'
  | 'finalizing'
  | 'completed'
  | 'expired'
  | 'cancelling'
  | 'cancelled';

export type FilePurpose = 'batch' | 'batch_output';

export interface StoredFile {
  readonly fileId: string;
  readonly tenant: string;
  readonly purpose: FilePurpose;
  /** As the client named it, without folders; never a path of ours. */
  readonly filename: string;
  readonly bytes: number;
  readonly createdAt: number;
  readonly expiresAt: number;
}

/** One thing wrong with an input file. */
export interface InputFault {
  readonly code: string;
  readonly message: string;
  readonly param: string | null;
  /** Counted from 1; null where the whole file is meant. */
  readonly line: number | null;
}

export interface LineCounts {
  readonly total: number;
  readonly completed: number;
  readonly failed: number;
}

export interface LineUsage {
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
}

/** Who a batch's lines run for. */
export interface BatchOwner {
  readonly tenant: string;
  /** '' where no key was needed. */
  readonly keyId: string;
}

export interface Batch extends BatchOwner {
  readonly batchId: string;
  readonly endpoint: BatchEndpoint;
  readonly inputFileId: string;
  readonly metadata: Readonly<Record<string, string>> | null;
  /** How long output and error file are kept; null: as long as any file. */
  readonly outputExpiresAfterMs: number | null;
  readonly status: BatchStatus;
  /** The one all lines name; '' until they have been read. */
  readonly model: string;
  readonly createdAt: number;
  readonly expiresAt: number;
  readonly inProgressAt: number | null;
  readonly finalizingAt: number | null;
  readonly completedAt: number | null;
  readonly failedAt: number | null;
  readonly expiredAt: number | null;
  readonly cancellingAt: number | null;
  readonly cancelledAt: number | null;
  /** True once its window has passed with lines left: it finalizes what there is, then is expired. */
  readonly isOverdue: boolean;
  readonly faults: readonly InputFault[];
  readonly outputFileId: string | null;
  readonly errorFileId: string | null;
  /** Final once it has ended; while lines run their log knows better. */
  readonly counts: LineCounts;
  readonly usage: LineUsage;
}

export const noUsage: LineUsage = { promptTokenCount: 0, cachedTokenCount: 0, completionTokenCount: 0 };

/** notFound: no such id. invalid: a bad value. conflict: the state forbids it. full: no room. unavailable: not now. */
export type BatchFault = 'notFound' | 'invalid' | 'conflict' | 'full' | 'unavailable';

/** What this room refuses, with a sentence that says what to change; http/ gives it a status and OpenAI's shape. */
export class BatchError extends Error {
  override readonly name = 'BatchError';
  readonly fault: BatchFault;
  readonly code: string;
  readonly param: string | null;

  constructor(
    fault: BatchFault,
    code: string,
    message: string,
    param: string | null = null,
    options?: ErrorOptions,
  ) {
    super(message, options);
    this.fault = fault;
    this.code = code;
    this.param = param;
  }
}
