/** The typed tRPC client that commands, benches and tests use against a running engine's admin port. */
import { createTRPCClient, httpBatchLink, type TRPCClient } from '@trpc/client';
import type { AppRouter } from '../api/router.ts';

export type AdminClient = TRPCClient<AppRouter>;

/** @param name what the audit calls this client */
export function adminClient(url: string, name: string, adminKey: string | null): AdminClient {
  return createTRPCClient<AppRouter>({
    links: [
      httpBatchLink({
        url: `${url}/trpc`,
        headers: {
          'x-variator-client': name,
          ...(adminKey === null ? {} : { authorization: `Bearer ${adminKey}` }),
        },
      }),
    ],
  });
}
