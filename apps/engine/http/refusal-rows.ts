/**
 * The rows of requests that were refused before they had a sequence: whose, when and why; nothing of what was asked. Called
 * by server.ts as it answers the error, for callers it knows. Of a storm only so many a second are written, of one tenant and
 * of all; the others are counted. One per server.
 */
import type { RequestRow } from '@variator/clickhouse/request-row';
import type { Caller } from './api-key.ts';
import { refusedRow } from './request-record.ts';
import type { RequestTerms } from './request-terms.ts';

/** What is known of a request while it may still be refused. */
export interface Refusable {
  readonly arrivedAt: number;
  readonly requestId: string;
  readonly endpoint: RequestRow['endpoint'];
  readonly caller: Pick<Caller, 'tenant' | 'keyId'>;
  /** null until its body is parsed. */
  readonly terms: RequestTerms | null;
  readonly isStreamed: boolean;
}

export interface RefusalRowsParts {
  readonly modelId: string;
  readonly record: (row: RequestRow) => void;
  /** Called for every refusal without a row. */
  readonly skipped: () => void;
}

const MOST_PER_SECOND = 100;
const MOST_PER_TENANT_AND_SECOND = 10;

export class RefusalRows {
  readonly #parts: RefusalRowsParts;
  #second = 0;
  #count = 0;
  /** Of this second; never more tenants than rows. */
  readonly #countOf = new Map<string, number>();

  constructor(parts: RefusalRowsParts) {
    this.#parts = parts;
  }

  refused(request: Refusable, error: { readonly status: number; readonly code: string }, now: number): void {
    const { modelId, record, skipped } = this.#parts;
    if (this.#mayWrite(request.caller.tenant, now)) {
      record(refusedRow({ ...request, modelId, status: error.status, code: error.code, endedAt: now }));
    } else {
      skipped();
    }
  }

  #mayWrite(tenant: string, now: number): boolean {
    const second = Math.floor(now / 1000);
    if (second !== this.#second) {
      this.#second = second;
      this.#count = 0;
      this.#countOf.clear();
    }
    const own = this.#countOf.get(tenant) ?? 0;
    if (this.#count >= MOST_PER_SECOND || own >= MOST_PER_TENANT_AND_SECOND) return false;
    this.#count += 1;
    this.#countOf.set(tenant, own + 1);
    return true;
  }
}
