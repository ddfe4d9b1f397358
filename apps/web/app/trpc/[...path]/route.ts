/**
 * The browser's only door to the gateway: forwards tRPC calls to the admin port and adds the key there, so that the
 * key never reaches a browser. Refuses foreign pages and hosts; answers 502 in tRPC's shape while the gateway is down.
 */
import { errorBody, MOST_BODY_BYTES, readBounded, refusalOf } from '../../../proxy-rules.ts';
import { readServerSettings, SettingsError } from '../../../server-settings.ts';

export const dynamic = 'force-dynamic';

const TIMEOUT_MS = 30_000;

async function forward(
  request: Request,
  context: { params: Promise<{ path: string[] }> },
): Promise<Response> {
  const path = (await context.params).path.join('/');
  const query = new URL(request.url).search;
  const refusal = refusalOf({
    method: request.method,
    path,
    query,
    host: request.headers.get('host'),
    origin: request.headers.get('origin'),
    contentType: request.headers.get('content-type'),
  });
  if (refusal !== null) return answer(refusal.status, 'FORBIDDEN', refusal.message, path);
  const body = request.method === 'POST' ? await readBounded(request.body, MOST_BODY_BYTES) : undefined;
  if (body === null) {
    return answer(413, 'PAYLOAD_TOO_LARGE', `A change may have ${MOST_BODY_BYTES} bytes.`, path);
  }
  try {
    const { adminUrl, adminKey } = await readServerSettings();
    const headers = new Headers({ 'x-variator-client': 'dashboard' });
    if (adminKey !== '') headers.set('authorization', `Bearer ${adminKey}`);
    if (body !== undefined) headers.set('content-type', 'application/json');
    const upstream = await fetch(new URL(`/trpc/${path}${query}`, adminUrl), {
      method: request.method,
      headers,
      ...(body === undefined ? {} : { body }),
      cache: 'no-store',
      redirect: 'error',
      signal: AbortSignal.any([request.signal, AbortSignal.timeout(TIMEOUT_MS)]),
    });
    return new Response(upstream.body, {
      status: upstream.status,
      headers: {
        'content-type': upstream.headers.get('content-type') ?? 'application/json',
        'cache-control': 'no-store',
      },
    });
  } catch (error) {
    return answer(502, 'BAD_GATEWAY', reasonOf(error), path);
  }
}

function answer(status: number, code: string, message: string, path: string): Response {
  return new Response(errorBody(status, code, message, path), {
    status,
    headers: { 'content-type': 'application/json', 'cache-control': 'no-store' },
  });
}

function reasonOf(error: unknown): string {
  if (error instanceof SettingsError) return error.message;
  if (error instanceof Error && error.name === 'TimeoutError') {
    return `The gateway did not answer within ${TIMEOUT_MS / 1000} s.`;
  }
  return 'The gateway does not answer on its admin port.';
}

export { forward as GET, forward as POST };
