/** How long a body may take to arrive, by request: Node knows one limit for all, and that is the longest of them. */
import type { FastifyRequest } from 'fastify';
import { answerBrokenHttp } from './broken-http.ts';

/** Returns what lifts the limit. */
export function limitBodyTime(request: FastifyRequest, limitMs: number): () => void {
  const { raw } = request;
  const hasBody = raw.headers['transfer-encoding'] !== undefined || Number(raw.headers['content-length']) > 0;
  if (!hasBody) return () => {};
  const timer = setTimeout(() => {
    if (raw.complete) return;
    const error = Object.assign(new Error('The body took too long.'), { code: 'ERR_HTTP_REQUEST_TIMEOUT' });
    answerBrokenHttp(error, raw.socket);
    raw.socket.destroySoon();
  }, limitMs);
  timer.unref();
  const lift = (): void => clearTimeout(timer);
  raw.once('close', lift);
  return lift;
}
