/**
 * Whether it is safe to listen where the options say. Called before any socket is opened. Beyond loopback both doors
 * need a key: the inference port spends the device, the admin port changes it.
 */

export class UnsafeListenError extends Error {
  override readonly name = 'UnsafeListenError';
}

/** Names and addresses of this machine alone; a wildcard or empty host is not one. */
export function isLoopback(host: string): boolean {
  const name = host.replace(/^\[|\]$/g, '').toLowerCase();
  return name === 'localhost' || name === '::1' || /^127(\.\d{1,3}){3}$/.test(name);
}

/** @throws UnsafeListenError with a sentence that names what to set */
export function assertSafeToListen(options: {
  readonly host: string;
  /** '' or null where none is set. */
  readonly apiKey: string | null;
  readonly adminKey: string | null;
}): void {
  if (isLoopback(options.host)) return;
  const missing = [
    ...(options.apiKey ? [] : ['VARIATOR_API_KEY']),
    ...(options.adminKey ? [] : ['VARIATOR_ADMIN_KEY']),
  ];
  if (missing.length === 0) return;
  throw new UnsafeListenError(
    `Listening on ${options.host} opens Variator to other machines: set ${missing.join(' and ')} first, or keep --host 127.0.0.1.`,
  );
}
