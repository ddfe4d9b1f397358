/**
 * The tier a request runs in: what was asked for, or else what the request shows of somebody who waits. Pure; called by
 * http/ with evidence that it has gathered. Says why in words, for the request's row. A wrong guess costs little: tiers
 * only order what waits, and age makes up for every tier (packages/scheduler/next-admission.ts).
 */
import type { ServiceTier } from '@variator/scheduler/sequence';

/** '' where the client said nothing; `auto` leaves it to us as well. */
export type AskedTier = ServiceTier | 'auto' | '';

export interface TierEvidence {
  readonly asked: AskedTier;
  readonly isBatchLine: boolean;
  /** What a gateway in front of us calls the request's objective; '' where it says nothing. */
  readonly gatewayObjective: string;
  readonly isStreamed: boolean;
  /** How long the client will wait, as far as it says. */
  readonly patienceMs: number | null;
  /** Earlier turns of its session; null where it names none or it is the first. */
  readonly session: Behaviour | null;
  /** Recent requests of its tenant; null where there were none. */
  readonly tenant: Behaviour | null;
}

/** What is remembered of recent requests. */
export interface Behaviour {
  readonly requestCount: number;
  readonly streamedCount: number;
  /** Between an answer and the next request; null where no answer was followed by one. */
  readonly medianPauseMs: number | null;
  /** Requests inside at once, on the average of late. */
  readonly meanOpenCount: number;
}

export interface TierChoice {
  readonly serviceTier: ServiceTier;
  readonly reason: string;
}

const HURRIED_MS = 10_000;
/** OpenAI tells clients of flex to wait for a quarter of an hour. */
const PATIENT_MS = 900_000;
const LONG_PAUSE_MS = 60_000;
const LEAST_TURNS = 3;
const LEAST_REQUESTS = 20;
const MANY_AT_ONCE = 8;

/** Words in which gateways name their objectives. */
const objectiveWords: readonly (readonly [RegExp, ServiceTier])[] = [
  [/\b(batch|background|offline|bulk|flex|sheddable|best-?effort|non-?critical)\b/i, 'flex'],
  [/\b(priority|critical|interactive|real-?time|low-?latency)\b/i, 'priority'],
  [/\b(default|standard)\b/i, 'default'],
];

export function chooseTier(evidence: TierEvidence): TierChoice {
  const { asked, gatewayObjective, patienceMs, session, tenant, isStreamed } = evidence;
  if (asked !== '' && asked !== 'auto') return { serviceTier: asked, reason: 'asked for' };
  if (evidence.isBatchLine) return { serviceTier: 'flex', reason: 'a line of a batch file' };
  const named = objectiveWords.find(([words]) => words.test(gatewayObjective.replaceAll('_', '-')));
  if (named !== undefined) return { serviceTier: named[1], reason: "the gateway's objective says so" };
  if (patienceMs !== null && patienceMs <= HURRIED_MS) {
    return { serviceTier: 'priority', reason: `its client waits ${secondsOf(patienceMs)} at most` };
  }
  if (isStreamed) return { serviceTier: 'default', reason: 'streamed: somebody reads along' };
  if (patienceMs !== null && patienceMs >= PATIENT_MS) {
    return {
      serviceTier: 'flex',
      reason: `not streamed, and its client waits ${secondsOf(patienceMs)}`,
    };
  }
  if (session !== null && session.requestCount >= LEAST_TURNS) {
    const { medianPauseMs, streamedCount, requestCount } = session;
    if (streamedCount === 0 && medianPauseMs !== null && medianPauseMs >= LONG_PAUSE_MS) {
      return {
        serviceTier: 'flex',
        reason: `none of its session's last ${requestCount} turns was streamed, and it pauses for ${secondsOf(medianPauseMs)}`,
      };
    }
    return { serviceTier: 'default', reason: 'its session goes on soon after each answer' };
  }
  if (
    tenant !== null &&
    tenant.requestCount >= LEAST_REQUESTS &&
    tenant.streamedCount === 0 &&
    tenant.meanOpenCount >= MANY_AT_ONCE
  ) {
    return {
      serviceTier: 'flex',
      reason: `bulk: none of its tenant's last ${tenant.requestCount} requests was streamed, ${Math.round(tenant.meanOpenCount)} at once`,
    };
  }
  return { serviceTier: 'default', reason: 'nothing shows that it can wait' };
}

const secondsOf = (ms: number): string => `${Math.round(ms / 100) / 10} s`;
