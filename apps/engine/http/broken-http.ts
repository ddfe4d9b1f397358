/**
 * What is not HTTP at all, or does not arrive in time, still gets the error shape, and its connection is closed. Called by
 * Node through server.ts, before there is a request.
 */
import type { Socket } from 'node:net';
import { RequestError } from '../generation/request-error.ts';
import { freshRequestId } from './answer-headers.ts';
import { errorBody } from './error-body.ts';

const faults: Readonly<Record<string, readonly [line: string, message: string]>> = {
  HPE_HEADER_OVERFLOW: ['431 Request Header Fields Too Large', 'The headers are too large.'],
  ERR_HTTP_REQUEST_TIMEOUT: ['408 Request Timeout', 'The request took too long to arrive.'],
};
const otherFault = ['400 Bad Request', 'The request is not valid HTTP.'] as const;

export function answerBrokenHttp(error: Error & { code?: string }, socket: Socket): void {
  if (!socket.writable) {
    socket.destroy();
    return;
  }
  const [line, message] = faults[error.code ?? ''] ?? otherFault;
  const status = Number.parseInt(line, 10);
  const refusal = new RequestError({
    status,
    type: 'invalid_request_error',
    code: 'invalid_request',
    message,
  });
  const body = JSON.stringify(errorBody(refusal));
  const headers = {
    'content-type': 'application/json; charset=utf-8',
    'content-length': Buffer.byteLength(body),
    'x-request-id': freshRequestId(),
    connection: 'close',
  };
  const lines = Object.entries(headers).map(([name, value]) => `${name}: ${value}\r\n`);
  socket.end(`HTTP/1.1 ${line}\r\n${lines.join('')}\r\n${body}`);
}
