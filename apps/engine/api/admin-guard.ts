/**
 * Who may speak to the admin port: a table of checks on a request's method and headers, before any body is read. Called
 * by admin-server.ts's first hook. Pure; a refusal is a status, a code and a sentence.
 */
import { createHash, timingSafeEqual } from 'node:crypto';
import { isIP } from 'node:net';
import { isLoopback } from './safe-to-listen.ts';

export interface GuardOptions {
  readonly host: string;
  readonly port: number;
  readonly adminKey: string | null;
}

export interface GuardedRequest {
  readonly method: string;
  readonly headers: Readonly<Record<string, string | readonly string[] | undefined>>;
}

export interface Refusal {
  readonly status: 401 | 403 | 405 | 415;
  readonly code: 'UNAUTHORIZED' | 'FORBIDDEN' | 'METHOD_NOT_SUPPORTED' | 'UNSUPPORTED_MEDIA_TYPE';
  readonly message: string;
}

/** What a client calls itself: printable, short, no spaces; it goes into the audit. */
const CLIENT_NAME = /^[\w.@:/+-]{1,64}$/;

/** Null where the request may go on. */
export function refusalOf(request: GuardedRequest, options: GuardOptions): Refusal | null {
  const { method, headers } = request;
  const host = one(headers.host);
  // A page of another site whose name was rebound to this address still sends its own name here.
  if (host === null || !isOwnHost(host, options)) {
    return forbidden(
      `The Host header must name this server, e.g. ${hostOf(options.host)}:${options.port}, not "${quoted(host)}".`,
    );
  }
  if (method !== 'GET' && method !== 'POST') {
    return {
      status: 405,
      code: 'METHOD_NOT_SUPPORTED',
      message: 'Only GET (queries) and POST are served here.',
    };
  }
  const { origin } = headers;
  if (origin !== undefined && !isOwnOrigin(one(origin), options)) {
    return forbidden(
      'The Origin header names another site; a browser talks to the dashboard, which asks here.',
    );
  }
  if (options.adminKey !== null && !isKey(one(headers.authorization), options.adminKey)) {
    return {
      status: 401,
      code: 'UNAUTHORIZED',
      message: 'The admin key is missing or wrong: send "Authorization: Bearer" with VARIATOR_ADMIN_KEY.',
    };
  }
  if (method === 'GET') return null;
  const mediaType = (one(headers['content-type']) ?? '').split(';')[0]?.trim().toLowerCase();
  if (mediaType !== 'application/json') {
    return {
      status: 415,
      code: 'UNSUPPORTED_MEDIA_TYPE',
      message: 'The content type must be application/json.',
    };
  }
  // No cross-site form or link can set it; it also says who, for the audit.
  if (!CLIENT_NAME.test(one(headers['x-variator-client']) ?? '')) {
    return forbidden(
      'The header x-variator-client is missing: name the client in it, 1 to 64 letters, digits or .@:/+-_.',
    );
  }
  return null;
}

/** The client's name for the audit; '' where it gave none. */
export function clientOf(request: Pick<GuardedRequest, 'headers'>): string {
  const name = one(request.headers['x-variator-client']) ?? '';
  return CLIENT_NAME.test(name) ? name : '';
}

function one(value: string | readonly string[] | undefined): string | null {
  return typeof value === 'string' ? value : null;
}

function isOwnHost(host: string, options: GuardOptions): boolean {
  const colon = host.lastIndexOf(':');
  const isPortThere = colon > host.lastIndexOf(']');
  const name = (isPortThere ? host.slice(0, colon) : host).toLowerCase();
  const port = isPortThere ? host.slice(colon + 1) : '80';
  if (port !== String(options.port)) return false;
  const bare = name.replace(/^\[(.*)\]$/, '$1');
  if (bare === 'localhost' || bare === '127.0.0.1' || bare === '::1') return true;
  const configured = options.host.replace(/^\[(.*)\]$/, '$1').toLowerCase();
  if (bare === configured) return true;
  // Listening everywhere: any address of ours, but no name, since only names can be rebound.
  return (configured === '0.0.0.0' || configured === '::' || configured === '') && isIP(bare) !== 0;
}

function isOwnOrigin(origin: string | null, options: GuardOptions): boolean {
  if (origin === null || !origin.startsWith('http')) return false;
  const authority = origin.replace(/^https?:\/\//, '');
  return isOwnHost(authority, options);
}

/** Digests are compared, so that neither length nor first difference shows in the time taken. */
function isKey(authorization: string | null, adminKey: string): boolean {
  const sent = /^Bearer (.+)$/i.exec(authorization ?? '')?.[1] ?? '';
  const digest = (text: string) => createHash('sha256').update(text).digest();
  return timingSafeEqual(digest(sent), digest(adminKey));
}

function hostOf(host: string): string {
  return isLoopback(host) ? '127.0.0.1' : host;
}

function forbidden(message: string): Refusal {
  return { status: 403, code: 'FORBIDDEN', message };
}

function quoted(text: string | null): string {
  return (text ?? '').replace(/[^\x20-\x7e]/g, '?').slice(0, 100);
}
