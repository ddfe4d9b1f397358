/**
 * What a batch asks of the endpoint: to check a line and to answer one exactly as a request of its own. Implemented by
 * http/batch-lines.ts and given to `Batches.start`, so that this room needs nothing of http/ and a line has no road of its
 * own.
 */
import type { BatchEndpoint, BatchOwner, LineUsage } from './batch.ts';
import type { LineRules } from './check-input.ts';
import type { RefusedLine } from './line-retry.ts';

export interface AskedLine {
  readonly endpoint: BatchEndpoint;
  readonly body: unknown;
  readonly owner: BatchOwner;
}

export type LineAnswer = {
  readonly requestId: string;
  /** A whole answer, or an error in OpenAI's shape. */
  readonly body: object;
} & (
  | { readonly isAnswered: true; readonly status: 200; readonly usage: LineUsage }
  | ({ readonly isAnswered: false } & RefusedLine)
);

export interface LineRoad extends LineRules {
  /** Never rejects for what is the line's or the world's fault; aborting cancels its sequences. */
  answerLine(line: AskedLine, signal: AbortSignal): Promise<LineAnswer>;
  /** Sequences inside the endpoint now; a line may be several. */
  insideCounts(): { readonly requests: number; readonly lines: number };
}
