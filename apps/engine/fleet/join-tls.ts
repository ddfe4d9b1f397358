/**
 * How the two ends of a link over TCP know each other: TLS whose pre-shared key is the join token (RFC 5489, ECDHE), so that
 * each proves to the other that it has the token, no certificate is handled, and nothing of the link's protocol is read from
 * anybody else. Used by link-door.ts and worker/gateway-link.ts.
 */
import { hkdfSync } from 'node:crypto';
import type { ConnectionOptions, TlsOptions } from 'node:tls';

/** A token can be tried out offline by whoever once stood between the two; this many characters make that hopeless. */
export const LEAST_TOKEN_LENGTH = 32;

const IDENTITY = 'variator-worker';
const HANDSHAKE_LIMIT_MS = 10_000;
/** Node has pre-shared keys up to TLS 1.2; the key exchange is ephemeral, so a token that leaks later opens no record. */
const terms = {
  ciphers: 'ECDHE-PSK-CHACHA20-POLY1305',
  minVersion: 'TLSv1.2',
  maxVersion: 'TLSv1.2',
} as const;

const keyOf = (token: string): Buffer => Buffer.from(hkdfSync('sha256', token, '', 'variator join', 32));

export function tlsOfGateway(token: string): TlsOptions {
  const psk = keyOf(token);
  return {
    ...terms,
    handshakeTimeout: HANDSHAKE_LIMIT_MS,
    pskCallback: (_socket, identity) => (identity === IDENTITY ? psk : null),
  };
}

export function tlsOfWorker(token: string): ConnectionOptions {
  const psk = keyOf(token);
  return {
    ...terms,
    pskCallback: () => ({ psk, identity: IDENTITY }),
    // There is no certificate that could carry a name: the key is the identity.
    checkServerIdentity: () => undefined,
  };
}
