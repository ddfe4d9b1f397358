/**
 * The terms that a request runs under: whose it is, its session, tier, deadline and objectives. Gathered by
 * answer-endpoint.ts before the prompt is tokenised; the rules are in generation/service-tier.ts and api-key.ts.
 */
import type { IncomingHttpHeaders } from 'node:http';
import type { AgeLimits, Objectives, ServiceTier } from '@variator/scheduler/sequence';
import { RequestError } from '../generation/request-error.ts';
import { type AskedTier, chooseTier } from '../generation/service-tier.ts';
import type { Caller, Callers } from './api-key.ts';
import { requestHints } from './request-hints.ts';
import type { RequestHistory } from './request-history.ts';

const MAX_NAME_CHARS = 128;

export interface RequestTerms extends Caller {
  readonly session: string;
  readonly program: string;
  readonly serviceTierAsked: AskedTier;
  readonly serviceTier: ServiceTier;
  readonly serviceTierReason: string;
  readonly objectives: Objectives;
  /** From arrival; null: none. */
  readonly deadlineMs: number | null;
  readonly maxQueueWaitMs: number | null;
  /** To be called when the request has ended. */
  readonly ended: (now: number) => void;
}

export interface TermsParts {
  readonly callers: Callers;
  readonly history: RequestHistory;
  readonly objectives: () => Objectives;
  readonly requestTimeoutMs: number | null;
  readonly maxQueueWaitMs: number | null;
}

/** What its body says of it. */
export interface AskedTerms {
  readonly serviceTier: AskedTier;
  readonly isStreamed: boolean;
  /** '' where the body names none. */
  readonly session: string;
  readonly program: string;
}

/** @throws RequestError for a header that is none */
export function requestTerms(
  headers: IncomingHttpHeaders,
  asked: AskedTerms,
  parts: TermsParts,
  now: number,
): RequestTerms {
  const caller = parts.callers.of(headers);
  const hints = requestHints(headers);
  const session = (hints.session || asked.session).slice(0, MAX_NAME_CHARS);
  const history = parts.history.arrived({ tenant: caller.tenant, session }, asked.isStreamed, now);
  const { serviceTier, reason } = chooseTier({
    asked: asked.serviceTier,
    isBatchLine: false,
    gatewayObjective: hints.gatewayObjective,
    isStreamed: asked.isStreamed,
    patienceMs: hints.patienceMs,
    session: history.session,
    tenant: history.tenant,
  });
  const { ttftMs, itlMs } = parts.objectives();
  return {
    ...caller,
    session,
    program: (hints.program || asked.program || session).slice(0, MAX_NAME_CHARS),
    serviceTierAsked: asked.serviceTier,
    serviceTier,
    serviceTierReason: reason,
    // First tokens and gaps are felt only where the answer is streamed.
    objectives: asked.isStreamed ? { ttftMs, itlMs } : { ttftMs: 0, itlMs: 0 },
    deadlineMs: leastOf(hints.deadlineMs, parts.requestTimeoutMs),
    maxQueueWaitMs: serviceTier === 'flex' ? null : parts.maxQueueWaitMs,
    ended: history.ended,
  };
}

/** Whose batch a line is of. */
export type LineOwner = Pick<Caller, 'tenant' | 'keyId'>;

/** A line's only limit is the window of its batch; it runs in the gaps whatever it asks for, and is no evidence. */
export function lineTerms(
  owner: LineOwner,
  asked: Pick<AskedTerms, 'serviceTier' | 'session' | 'program'>,
  parts: Pick<TermsParts, 'callers'>,
): RequestTerms {
  const { serviceTier, reason } = chooseTier({
    asked: '',
    isBatchLine: true,
    gatewayObjective: '',
    isStreamed: false,
    patienceMs: null,
    session: null,
    tenant: null,
  });
  const session = asked.session.slice(0, MAX_NAME_CHARS);
  return {
    tenant: owner.tenant,
    keyId: owner.keyId,
    cacheSalt: parts.callers.saltOf(owner.tenant),
    session,
    program: (asked.program || session).slice(0, MAX_NAME_CHARS),
    serviceTierAsked: asked.serviceTier,
    serviceTier,
    serviceTierReason: reason,
    objectives: { ttftMs: 0, itlMs: 0 },
    deadlineMs: null,
    maxQueueWaitMs: null,
    ended: () => {},
  };
}

/** What of the terms' limits is left for the scheduler. @throws RequestError where nothing is */
export function ageLimitsLeft(terms: RequestTerms, elapsedMs: number): AgeLimits | null {
  const { deadlineMs, maxQueueWaitMs } = terms;
  if (deadlineMs === null && maxQueueWaitMs === null) return null;
  const left = {
    totalMs: deadlineMs === null ? null : deadlineMs - elapsedMs,
    queueMs: maxQueueWaitMs === null ? null : maxQueueWaitMs - elapsedMs,
  };
  if (Math.min(left.totalMs ?? 1, left.queueMs ?? 1) <= 0) throw expired(terms, elapsedMs);
  return left;
}

/** 504: its time is over, and trying again would take as long. 503: it never came to be computed, and may fare better. */
export function expired({ deadlineMs }: Pick<RequestTerms, 'deadlineMs'>, elapsedMs: number): RequestError {
  return deadlineMs !== null && elapsedMs >= deadlineMs
    ? new RequestError({
        status: 504,
        type: 'server_error',
        code: 'deadline_exceeded',
        message: `The request was not done within its ${deadlineMs / 1000} s. Ask for fewer tokens, or give it more time.`,
      })
    : new RequestError({
        status: 503,
        type: 'server_error',
        code: 'queue_timeout',
        message: 'The request waited in the queue for as long as this server allows; please try again.',
        retryAfterMs: 1000,
      });
}

const leastOf = (a: number | null, b: number | null): number | null =>
  a === null ? b : b === null ? a : Math.min(a, b);
