/** Every refusal and failure in OpenAI's error shape, whoever raised it. Made here and nowhere else; no stack, no path. */
import { RequestError } from '../generation/request-error.ts';

export interface ErrorBody {
  readonly error: {
    readonly message: string;
    readonly type: string;
    readonly param: string | null;
    readonly code: string;
  };
}

export function errorBody(error: RequestError): ErrorBody {
  const { message, type, param, code } = error;
  return { error: { message, type, param, code } };
}

/** Headers that tell a client whether and when to try again. What the caller must change will never fit as it is, nor what ran out of time. */
export function retryHeaders(error: RequestError): Record<string, string> {
  const { retryAfterMs, status } = error;
  if (retryAfterMs === null) {
    const isFinal = status === 504 || status === 507 || (status < 500 && status !== 408);
    return isFinal ? { 'x-should-retry': 'false' } : {};
  }
  return {
    'x-should-retry': 'true',
    'retry-after': String(Math.ceil(retryAfterMs / 1000)),
    'retry-after-ms': String(retryAfterMs),
  };
}

/** What Fastify and Node raise before a route runs, by the code they give it. */
const byCode: Readonly<Record<string, { status: number; code: string; message: string }>> = {
  FST_ERR_CTP_BODY_TOO_LARGE: {
    status: 413,
    code: 'request_too_large',
    message: 'The request body is too large.',
  },
  FST_ERR_CTP_INVALID_MEDIA_TYPE: {
    status: 415,
    code: 'unsupported_media_type',
    message: 'Send the body as JSON, with the header "content-type: application/json".',
  },
  FST_ERR_CTP_INVALID_CONTENT_LENGTH: {
    status: 400,
    code: 'invalid_request',
    message: 'The body is not as long as its content-length says.',
  },
  FST_ERR_CTP_EMPTY_JSON_BODY: { status: 400, code: 'invalid_json', message: 'The request body is empty.' },
  FST_ERR_BAD_URL: { status: 400, code: 'invalid_request', message: 'The URL is malformed.' },
};

/** A RequestError for anything that was thrown; null where it is a fault of ours and not the caller's. */
export function asRequestError(error: unknown): RequestError | null {
  if (error instanceof RequestError) return error;
  const code = typeof error === 'object' && error !== null && 'code' in error ? String(error.code) : '';
  const known = byCode[code];
  return known === undefined ? null : new RequestError({ ...known, type: 'invalid_request_error' });
}

export function serverError(message: string, code = 'server_error'): RequestError {
  return new RequestError({ status: 500, type: 'server_error', code, message });
}

/** 503: nothing is wrong with the request; it can be sent again. */
export function unavailable(message: string, code = 'server_error'): RequestError {
  return new RequestError({ status: 503, type: 'server_error', code, message, retryAfterMs: 1000 });
}
