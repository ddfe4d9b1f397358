/**
 * What a request's headers say beside its body: the conversation it belongs to, how long its client waits, what a gateway
 * thinks of it. Read once, by answer-endpoint.ts. Nothing here changes a token.
 */
import type { IncomingHttpHeaders } from 'node:http';
import { invalidRequest } from '../generation/request-error.ts';

export interface RequestHints {
  /** '' where no header names one. */
  readonly session: string;
  /** The whole of an agent's calls, over several sessions; '' where no header names one. */
  readonly program: string;
  /** After which its client wants no answer any more, from arrival; it is held to it. */
  readonly deadlineMs: number | null;
  /** How long its client will wait as far as we can tell; only a hint. */
  readonly patienceMs: number | null;
  readonly gatewayObjective: string;
}

/** Ours first, then what agents' clients and proxies send. */
const sessionHeaders = [
  'x-session-id',
  'x-conversation-id',
  'session-id',
  'session_id',
  'conversation_id',
  'x-claude-code-session-id',
  'x-session-affinity',
  'x-litellm-session-id',
  'helicone-session-id',
] as const;
const programHeaders = ['x-program-id', 'x-litellm-trace-id', 'x-parent-session-id'] as const;
const objectiveHeaders = ['x-gateway-inference-objective', 'x-llm-d-inference-objective'] as const;

const MAX_DEADLINE_MS = 7 * 24 * 3_600_000;

/** @throws RequestError 400 for a deadline that is none */
export function requestHints(headers: IncomingHttpHeaders): RequestHints {
  const deadlineMs = deadlineOf(headers);
  // Set by OpenAI's clients from their own timeout, in seconds; after it they hang up or try again.
  const stainlessSeconds = Number(headers['x-stainless-timeout']);
  return {
    session: firstOf(headers, sessionHeaders),
    program: firstOf(headers, programHeaders),
    deadlineMs,
    patienceMs: deadlineMs ?? (stainlessSeconds > 0 ? stainlessSeconds * 1000 : null),
    gatewayObjective: firstOf(headers, objectiveHeaders),
  };
}

function firstOf(headers: IncomingHttpHeaders, names: readonly string[]): string {
  for (const name of names) {
    const value = headers[name];
    if (typeof value === 'string' && value !== '') return value;
  }
  return '';
}

function deadlineOf(headers: IncomingHttpHeaders): number | null {
  const text = headers['x-deadline-ms'];
  if (text === undefined) return null;
  const deadlineMs = Number(text);
  if (Number.isInteger(deadlineMs) && deadlineMs >= 1 && deadlineMs <= MAX_DEADLINE_MS) return deadlineMs;
  throw invalidRequest(
    'invalid_value',
    'x-deadline-ms',
    `The header "x-deadline-ms" must be a whole number of milliseconds from 1 to ${MAX_DEADLINE_MS}: how long from now an answer is of use.`,
  );
}
