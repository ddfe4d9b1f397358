/**
 * One row per request, written when its account is final, or when it was refused. Produced by the gateway, stored in table
 * `requests`. Column names are these names. Times are epoch milliseconds here and DateTime64(6, 'UTC') in the table.
 */
import type { EndReason, GuessCounts, ServiceTier } from '@variator/scheduler/sequence';

export interface RequestRow extends GuessCounts {
  readonly arrivedAt: number;
  readonly requestId: string;
  readonly endpoint: '/v1/chat/completions' | '/v1/completions';
  readonly modelId: string;
  readonly tenant: string;
  /** Name of the key it came with; '' where none was asked for. */
  readonly keyId: string;
  readonly session: string;
  readonly program: string;
  /** As the client asked; '' where it did not. */
  readonly serviceTierAsked: ServiceTier | 'auto' | '';
  /** As used. */
  readonly serviceTier: ServiceTier;
  /** For people. */
  readonly serviceTierReason: string;
  readonly isStreamed: boolean;
  /** HTTP status sent; 200 for a stream that began. */
  readonly status: number;
  /** Made of status and finishReason, for whoever counts. */
  readonly outcome: 'ok' | 'cancelled' | 'expired' | 'failed' | 'refused';
  /** '' where it was refused, before it had a sequence. */
  readonly finishReason: EndReason | '';
  /** OpenAI error code for refused or failed requests, else ''. */
  readonly errorCode: string;
  readonly workerId: string;
  /** The path live when it ended. */
  readonly pathId: string;
  readonly isMixedNumerics: boolean;
  readonly promptTokenCount: number;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
  /** Both 0 where the path does not speculate. */
  readonly speculatedTokenCount: number;
  readonly acceptedTokenCount: number;
  readonly queueMs: number;
  /** First being scheduled to first token; 0 where no token was produced. */
  readonly prefillMs: number;
  /** First to last token. */
  readonly decodeMs: number;
  /** 0 where no token was produced. */
  readonly ttftMs: number;
  /** Mean gap between tokens; 0 below two tokens. */
  readonly tpotMs: number;
  readonly itlP95Ms: number;
  readonly itlMaxMs: number;
  readonly e2eMs: number;
  readonly preemptionCount: number;
  /** Times it went on with another worker after its own was lost. */
  readonly resumeCount: number;
  readonly prefillDeviceMs: number;
  readonly decodeDeviceMs: number;
  readonly speculationWasteDeviceMs: number;
  readonly recomputeDeviceMs: number;
  readonly fitId: string;
  readonly fitCount: number;
  /** False where a worker was lost before the last charge. */
  readonly isAccountFinal: boolean;
  /** 0 where the answer was not streamed: neither TTFT nor ITL is an objective then. */
  readonly ttftObjectiveMs: number;
  readonly itlObjectiveMs: number;
  readonly isWithinObjectives: boolean;
}

/** Of a request that had a sequence. */
export interface ServedRequestRow extends RequestRow {
  readonly outcome: Exclude<RequestRow['outcome'], 'refused'>;
  readonly finishReason: EndReason;
}
