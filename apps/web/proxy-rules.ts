/**
 * Which browser requests the proxy lets through, as pure rules: called by the route in app/trpc before anything is
 * forwarded. It holds no key and makes no connection; a refusal is a sentence and a status.
 */
export const MOST_BODY_BYTES = 256 * 1024;
export const MOST_QUERY_CHARACTERS = 16 * 1024;

const loopbackNames: readonly string[] = ['localhost', '127.0.0.1', '[::1]'];

export interface Refusal {
  readonly status: 400 | 403 | 413 | 415;
  readonly message: string;
}

export interface ProxiedRequest {
  readonly method: string;
  readonly path: string;
  readonly query: string;
  readonly host: string | null;
  readonly origin: string | null;
  readonly contentType: string | null;
}

/** null where the request may pass. A foreign Host is a rebound DNS name; a foreign Origin is another site's page. */
export function refusalOf(request: ProxiedRequest): Refusal | null {
  const host = request.host ?? '';
  if (!loopbackNames.includes(host.replace(/:\d+$/, '').toLowerCase())) {
    return {
      status: 403,
      message: `The dashboard answers on ${loopbackNames.join(', ')}, not on "${host}".`,
    };
  }
  if (!/^[A-Za-z]+(\.[A-Za-z]+)*(,[A-Za-z]+(\.[A-Za-z]+)*)*$/.test(request.path)) {
    return { status: 400, message: 'A procedure is named like overview.summary.' };
  }
  if (request.query.length > MOST_QUERY_CHARACTERS) {
    return { status: 413, message: `The query is longer than ${MOST_QUERY_CHARACTERS} characters.` };
  }
  if (request.method === 'GET') return null;
  if (request.origin === null || originHost(request.origin) !== host.toLowerCase()) {
    return { status: 403, message: 'A change must come from the dashboard’s own pages.' };
  }
  if (!(request.contentType ?? '').toLowerCase().startsWith('application/json')) {
    return { status: 415, message: 'A change must be sent as application/json.' };
  }
  return null;
}

function originHost(origin: string): string {
  return URL.canParse(origin) ? new URL(origin).host.toLowerCase() : '';
}

/** tRPC's error shape, so that its client reads our refusals as it reads the gateway's. */
export function errorBody(status: number, code: string, message: string, path: string): string {
  return JSON.stringify({ error: { message, code: -32603, data: { code, httpStatus: status, path } } });
}

/**
 * Reads a body up to a limit.
 * @returns null where it is longer
 */
export async function readBounded(
  body: ReadableStream<Uint8Array> | null,
  mostBytes: number,
): Promise<Uint8Array<ArrayBuffer> | null> {
  if (body === null) return new Uint8Array();
  const parts: Uint8Array[] = [];
  let byteCount = 0;
  for await (const part of body as unknown as AsyncIterable<Uint8Array>) {
    byteCount += part.byteLength;
    if (byteCount > mostBytes) return null;
    parts.push(part);
  }
  const whole = new Uint8Array(byteCount);
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.byteLength;
  }
  return whole;
}
