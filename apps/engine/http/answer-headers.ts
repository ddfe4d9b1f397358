/**
 * Headers beside an answer: which request it was, how long it took, what the door still takes. Names as OpenAI's, values
 * from the admission's real bounds: they bound what waits at once, so "reset" is when it is worth asking again.
 */
import { randomUUID } from 'node:crypto';
import type { IncomingMessage } from 'node:http';
import type { AdmissionLoad } from './admission.ts';

const wellFormedId = /^[\w.:@/+=-]{1,128}$/;

export const freshRequestId = (): string => `req_${randomUUID().replaceAll('-', '')}`;

/** The client's own id where it can stand in a header and a log; else a fresh one. */
export function requestIdOf(request: Pick<IncomingMessage, 'headers'>): string {
  const asked = request.headers['x-request-id'];
  return typeof asked === 'string' && wellFormedId.test(asked) ? asked : freshRequestId();
}

export function answerHeaders(load: AdmissionLoad, processingMs: number): Record<string, string> {
  const { maxSequenceCount, sequenceCount, maxPromptTokenCount, promptTokenCount, retryAfterMs } = load;
  return {
    'openai-processing-ms': String(Math.round(processingMs)),
    'x-ratelimit-limit-requests': String(maxSequenceCount),
    'x-ratelimit-limit-tokens': String(maxPromptTokenCount),
    'x-ratelimit-remaining-requests': String(Math.max(0, maxSequenceCount - sequenceCount)),
    'x-ratelimit-remaining-tokens': String(Math.max(0, maxPromptTokenCount - promptTokenCount)),
    'x-ratelimit-reset-requests': spanWords(sequenceCount === 0 ? 0 : retryAfterMs),
    'x-ratelimit-reset-tokens': spanWords(promptTokenCount === 0 ? 0 : retryAfterMs),
  };
}

/** As OpenAI writes spans: `0s`, `60ms`, `1s`, `1.5s`, `6m0s`. */
export function spanWords(ms: number): string {
  if (ms > 0 && ms < 1000) return `${Math.ceil(ms)}ms`;
  const seconds = Math.ceil(ms / 10) / 100;
  return seconds < 60 ? `${seconds}s` : `${Math.floor(seconds / 60)}m${Math.ceil(seconds % 60)}s`;
}
