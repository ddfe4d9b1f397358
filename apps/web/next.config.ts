/**
 * How the dashboard is built. Read by `next build` and `next dev`. Holds nothing that may differ between two starts:
 * where the gateway is belongs to server-settings.ts, which is read when a request arrives.
 */
import { fileURLToPath } from 'node:url';
import type { NextConfig } from 'next';

const repositoryRoot = fileURLToPath(new URL('../../', import.meta.url));

const nextConfig: NextConfig = {
  output: 'standalone',
  outputFileTracingRoot: repositoryRoot,
  turbopack: { root: repositoryRoot },
  transpilePackages: ['geist'],
  poweredByHeader: false,
  devIndicators: false,
  agentRules: false,
  // `npm run typecheck` holds the types of this workspace and of the API it imports; a build on a newcomer's machine
  // should not pay for it again.
  typescript: { ignoreBuildErrors: true },
  headers: async () => [
    {
      // One click changes what a worker runs, so no other page may frame this one and borrow that click.
      source: '/:path*',
      headers: [
        {
          key: 'Content-Security-Policy',
          value: "frame-ancestors 'none'; base-uri 'self'; form-action 'self'",
        },
        { key: 'X-Frame-Options', value: 'DENY' },
        { key: 'X-Content-Type-Options', value: 'nosniff' },
        { key: 'Referrer-Policy', value: 'no-referrer' },
      ],
    },
  ],
};

export default nextConfig;
