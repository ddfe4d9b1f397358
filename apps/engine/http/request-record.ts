/**
 * The row of one request: made when its sequence has ended, by answer-run.ts, or when it was refused before it had one, by
 * refusal-rows.ts. Pure.
 */
import type { RequestRow, ServedRequestRow } from '@variator/clickhouse/request-row';
import { noGuesses } from '@variator/scheduler/guess-watch';
import type { Account, EndReason, GuessCounts } from '@variator/scheduler/sequence';
import type { SequenceEvent } from '../fleet/fleet.ts';
import type { Refusable } from './refusal-rows.ts';
import type { RequestTerms } from './request-terms.ts';
import type { TimingSummary } from './sequence-timing.ts';

/** What is known when the sequence is submitted. */
export interface RequestFacts {
  readonly arrivedAt: number;
  /** To the fleet. */
  readonly submittedAt: number;
  readonly requestId: string;
  readonly endpoint: RequestRow['endpoint'];
  readonly modelId: string;
  readonly terms: RequestTerms;
  readonly isStreamed: boolean;
  readonly promptTokenCount: number;
}

export interface RowEnd {
  readonly at: number;
  readonly reason: EndReason;
  readonly status: number;
  readonly errorCode: string;
  readonly workerId: string;
  readonly pathId: string;
  readonly isAccountFinal: boolean;
  readonly account: Account;
  readonly cachedTokenCount: number;
  readonly completionTokenCount: number;
  readonly preemptionCount: number;
  readonly speculatedTokenCount: number;
  readonly acceptedTokenCount: number;
  readonly guesses: GuessCounts;
  readonly resumeCount: number;
  readonly queueMs: number;
  readonly isMixedNumerics: boolean;
}

const emptyAccount: Account = {
  prefillDeviceMs: 0,
  decodeDeviceMs: 0,
  speculationWasteDeviceMs: 0,
  recomputeDeviceMs: 0,
  fitId: '',
  fitCount: 0,
};

/** What the fleet said at the end; where it said nothing, an error with an account that is not final. */
export function endOfRow(
  event: Extract<SequenceEvent, { kind: 'ended' }> | null,
  now: number,
  facts: RequestFacts,
  seenTokenCount: number,
): Omit<RowEnd, 'status' | 'errorCode'> {
  if (event === null) {
    return {
      at: now,
      reason: 'error',
      workerId: '',
      pathId: '',
      isAccountFinal: false,
      account: emptyAccount,
      cachedTokenCount: 0,
      completionTokenCount: seenTokenCount,
      preemptionCount: 0,
      speculatedTokenCount: 0,
      acceptedTokenCount: 0,
      guesses: noGuesses,
      resumeCount: 0,
      queueMs: Math.max(0, now - facts.arrivedAt),
      isMixedNumerics: false,
    };
  }
  const { ended, at, workerId, pathId, isAccountFinal, resumeCount } = event;
  return {
    at,
    reason: ended.reason,
    workerId,
    pathId,
    isAccountFinal,
    account: ended.account,
    cachedTokenCount: ended.cachedTokenCount,
    completionTokenCount: ended.completionTokenCount,
    preemptionCount: ended.preemptionCount,
    speculatedTokenCount: ended.speculatedTokenCount,
    acceptedTokenCount: ended.acceptedTokenCount,
    guesses: ended.guesses,
    resumeCount,
    queueMs: ended.queueMs,
    isMixedNumerics: ended.isMixedNumerics,
  };
}

function outcomeOf(reason: EndReason): ServedRequestRow['outcome'] {
  if (reason === 'stop' || reason === 'length') return 'ok';
  return reason === 'error' ? 'failed' : reason;
}

export function requestRow(facts: RequestFacts, timing: TimingSummary, end: RowEnd): ServedRequestRow {
  const { objectives, tenant, keyId, session, program } = facts.terms;
  const { serviceTierAsked, serviceTier, serviceTierReason } = facts.terms;
  return {
    arrivedAt: facts.arrivedAt,
    requestId: facts.requestId,
    endpoint: facts.endpoint,
    modelId: facts.modelId,
    tenant,
    keyId,
    session,
    program,
    serviceTierAsked,
    serviceTier,
    serviceTierReason,
    isStreamed: facts.isStreamed,
    status: end.status,
    outcome: outcomeOf(end.reason),
    finishReason: end.reason,
    errorCode: end.errorCode,
    workerId: end.workerId,
    pathId: end.pathId,
    isMixedNumerics: end.isMixedNumerics,
    promptTokenCount: facts.promptTokenCount,
    cachedTokenCount: end.cachedTokenCount,
    completionTokenCount: end.completionTokenCount,
    speculatedTokenCount: end.speculatedTokenCount,
    acceptedTokenCount: end.acceptedTokenCount,
    ...end.guesses,
    queueMs: end.queueMs,
    prefillMs:
      timing.ttftMs === 0
        ? 0
        : Math.max(0, timing.ttftMs - (facts.submittedAt - facts.arrivedAt) - end.queueMs),
    ...timing,
    e2eMs: Math.max(0, end.at - facts.arrivedAt),
    preemptionCount: end.preemptionCount,
    resumeCount: end.resumeCount,
    ...end.account,
    isAccountFinal: end.isAccountFinal,
    ttftObjectiveMs: objectives.ttftMs,
    itlObjectiveMs: objectives.itlMs,
    isWithinObjectives:
      end.reason !== 'error' &&
      end.completionTokenCount > 0 &&
      (objectives.ttftMs === 0 || timing.ttftMs <= objectives.ttftMs) &&
      (objectives.itlMs === 0 || timing.itlP95Ms <= objectives.itlMs),
  };
}

/** Nothing was computed for it, and it was under no objectives. */
export function refusedRow(
  refusal: Refusable & {
    readonly modelId: string;
    readonly status: number;
    readonly code: string;
    readonly endedAt: number;
  },
): RequestRow {
  const { terms, caller } = refusal;
  return {
    arrivedAt: refusal.arrivedAt,
    requestId: refusal.requestId,
    endpoint: refusal.endpoint,
    modelId: refusal.modelId,
    tenant: caller.tenant,
    keyId: caller.keyId,
    session: terms?.session ?? '',
    program: terms?.program ?? '',
    serviceTierAsked: terms?.serviceTierAsked ?? '',
    serviceTier: terms?.serviceTier ?? 'default',
    serviceTierReason: terms?.serviceTierReason ?? '',
    isStreamed: refusal.isStreamed,
    status: refusal.status,
    outcome: 'refused',
    finishReason: '',
    errorCode: refusal.code,
    workerId: '',
    pathId: '',
    isMixedNumerics: false,
    promptTokenCount: 0,
    cachedTokenCount: 0,
    completionTokenCount: 0,
    speculatedTokenCount: 0,
    acceptedTokenCount: 0,
    ...noGuesses,
    queueMs: 0,
    prefillMs: 0,
    decodeMs: 0,
    ttftMs: 0,
    tpotMs: 0,
    itlP95Ms: 0,
    itlMaxMs: 0,
    e2eMs: Math.max(0, refusal.endedAt - refusal.arrivedAt),
    preemptionCount: 0,
    resumeCount: 0,
    ...emptyAccount,
    isAccountFinal: true,
    ttftObjectiveMs: 0,
    itlObjectiveMs: 0,
    isWithinObjectives: false,
  };
}
