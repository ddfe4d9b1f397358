/**
 * The gateway's tRPC API as this service uses it, typed by the router itself. Made once by main.ts. It never retries: the
 * rounds are repeated anyway.
 */
import { createTRPCClient, httpLink, type TRPCClient } from '@trpc/client';
import type { AppRouter } from '@variator/engine/api';

export type Gateway = TRPCClient<AppRouter>;

/** Calibration waits for its share of device time; everything else answers at once. */
const ANSWER_LIMIT_MS = 15_000;
const CALIBRATION_LIMIT_MS = 280_000;

export function createGateway(adminUrl: string, adminKey: string | null, signal: AbortSignal): Gateway {
  const headers: Record<string, string> = { 'x-variator-client': 'optimizer' };
  if (adminKey !== null) headers.authorization = `Bearer ${adminKey}`;
  return createTRPCClient<AppRouter>({
    links: [
      httpLink({
        url: `${adminUrl}/trpc`,
        headers,
        fetch(input, init) {
          const limitMs = String(input).includes('calibration.run') ? CALIBRATION_LIMIT_MS : ANSWER_LIMIT_MS;
          const limits = [signal, AbortSignal.timeout(limitMs)];
          return fetch(String(input), {
            method: init?.method ?? 'GET',
            headers: init?.headers ?? headers,
            body: typeof init?.body === 'string' ? init.body : null,
            signal: AbortSignal.any(limits),
          });
        },
      }),
    ],
  });
}
