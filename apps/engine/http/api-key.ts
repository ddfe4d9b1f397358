/**
 * Whose request it is: the key it came with names the tenant, or a header where one is trusted. Keys are compared in
 * constant time, all of them, before a body is read. A tenant's salt keeps its prompts to itself in the prefix cache.
 */
import { createHash, createHmac, timingSafeEqual } from 'node:crypto';
import type { IncomingHttpHeaders } from 'node:http';
import { invalidRequest, RequestError } from '../generation/request-error.ts';

export interface NamedKey {
  readonly name: string;
  readonly key: string;
}

export interface Caller {
  readonly tenant: string;
  /** The key's name, which is no secret; '' where none was asked for. */
  readonly keyId: string;
  /** Differs between tenants and cannot be guessed from outside. */
  readonly cacheSalt: string;
}

export interface CallersOptions {
  /** Empty: no key is asked for. */
  readonly apiKeys: readonly NamedKey[];
  /** Only behind a gateway that sets it itself: whoever can send it can be anybody. */
  readonly isTenantHeaderTrusted: boolean;
  readonly tenantSecret: Buffer;
}

export const ANONYMOUS_TENANT = 'default';
/** The second is how gateways of the inference extension name whom to be fair to. */
const tenantHeaders = [
  'x-tenant-id',
  'x-gateway-inference-fairness-id',
  'x-llm-d-inference-fairness-id',
] as const;
const wellFormedTenant = /^[\w.@:/-]{1,64}$/;

export class Callers {
  readonly #options: CallersOptions;
  readonly #digests: readonly { readonly name: string; readonly digest: Buffer }[];

  constructor(options: CallersOptions) {
    this.#options = options;
    this.#digests = options.apiKeys.map(({ name, key }) => ({ name, digest: digestOf(key) }));
  }

  /** False where everybody is one tenant. */
  get canTellTenants(): boolean {
    return this.#options.isTenantHeaderTrusted || this.#digests.length > 1;
  }

  /** @throws RequestError 401 where a key is asked for and not sent; 400 for a trusted header that names nobody */
  of(headers: IncomingHttpHeaders): Caller {
    const keyId = this.#keyId(headers.authorization);
    const tenant = this.#headerTenant(headers) ?? (keyId === '' ? ANONYMOUS_TENANT : keyId);
    return { tenant, keyId, cacheSalt: this.saltOf(tenant) };
  }

  saltOf(tenant: string): string {
    return createHmac('sha256', this.#options.tenantSecret).update(tenant).digest('hex').slice(0, 32);
  }

  #keyId(authorization: string | undefined): string {
    if (this.#digests.length === 0) return '';
    const sent = /^Bearer +(\S+) *$/i.exec(authorization ?? '')?.[1] ?? '';
    const digest = digestOf(sent);
    let keyId = '';
    for (const known of this.#digests) if (timingSafeEqual(digest, known.digest)) keyId = known.name;
    if (keyId !== '') return keyId;
    throw new RequestError({
      status: 401,
      type: 'authentication_error',
      code: 'invalid_api_key',
      message:
        sent === ''
          ? 'An API key is needed: send the header "Authorization: Bearer KEY".'
          : 'The API key is not correct.',
    });
  }

  #headerTenant(headers: IncomingHttpHeaders): string | null {
    if (!this.#options.isTenantHeaderTrusted) return null;
    for (const name of tenantHeaders) {
      const value = headers[name];
      if (value === undefined || value === '') continue;
      if (typeof value === 'string' && wellFormedTenant.test(value)) return value;
      throw invalidRequest(
        'invalid_value',
        name,
        `The header "${name}" must be 1 to 64 letters, digits, and . @ : / _ or -.`,
      );
    }
    return null;
  }
}

const digestOf = (text: string): Buffer => createHash('sha256').update(text).digest();
