/**
 * The caller's errors: what http answers in OpenAI's shape. Made only in generation/ and http/; the message tells what to
 * change and carries no path, address or stack.
 */
export type RequestErrorType =
  | 'invalid_request_error'
  | 'authentication_error'
  | 'rate_limit_error'
  | 'server_error';

export class RequestError extends Error {
  override readonly name = 'RequestError';
  readonly status: number;
  readonly type: RequestErrorType;
  readonly code: string;
  readonly param: string | null;
  /** When to try again; null where trying again does not help. */
  readonly retryAfterMs: number | null;

  constructor(fault: {
    readonly status: number;
    readonly type: RequestErrorType;
    readonly code: string;
    readonly message: string;
    readonly param?: string | null;
    readonly retryAfterMs?: number | null;
  }) {
    super(fault.message);
    this.status = fault.status;
    this.type = fault.type;
    this.code = fault.code;
    this.param = fault.param ?? null;
    this.retryAfterMs = fault.retryAfterMs ?? null;
  }
}

/** A 400 that names the parameter. */
export function invalidRequest(code: string, param: string | null, message: string): RequestError {
  return new RequestError({ status: 400, type: 'invalid_request_error', code, param, message });
}
