/**
 * The door: how many requests and prompt tokens may wait for their first token, how much of that one tenant may take, and
 * how many may be inside at all. Over it a request is refused at once with 429, and told when the queue will have room. A
 * permit lives exactly as long as its stream. One per server; knows nothing of workers.
 */
import type { ServiceTier } from '@variator/scheduler/sequence';
import { RequestError } from '../generation/request-error.ts';
import { QueueDrain } from './queue-drain.ts';

export interface AdmissionLimits {
  /** Inside at once, running or waiting. */
  readonly maxSequenceCount: number;
  readonly maxQueuedRequestCount: number;
  readonly maxQueuedTokenCount: number;
  /** Of the queue, for one tenant of several, 0..1. */
  readonly tenantQueueShare: number;
  /** Who would wait longer is refused, unless it is flex; null: nobody is. */
  readonly maxQueueWaitMs: number | null;
}

export interface Permit {
  /** @throws RequestError 429 where the prompts are too much beside what waits, or would wait too long */
  takePrompts(promptTokenCounts: readonly number[], serviceTier: ServiceTier): void;
  /** The sequence of this prompt has its first token: it waits no more. */
  begun(index: number): void;
  /** May be called more than once. */
  release(): void;
}

/** What waits beside its bounds. */
export interface AdmissionLoad {
  readonly maxSequenceCount: number;
  readonly maxPromptTokenCount: number;
  readonly sequenceCount: number;
  readonly promptTokenCount: number;
  /** When a refused request is worth sending again. */
  readonly retryAfterMs: number;
}

interface Waiting {
  requestCount: number;
  promptTokenCount: number;
}

const DEFAULT_RETRY_MS = 1000;
const LEAST_RETRY_MS = 100;
/** OpenAI's clients obey nothing longer. */
const MOST_RETRY_MS = 60_000;

export class Admission {
  readonly #limits: AdmissionLimits;
  readonly #now: () => number;
  readonly #drain = new QueueDrain();
  readonly #waiters: (() => void)[] = [];
  readonly #queue: Waiting = { requestCount: 0, promptTokenCount: 0 };
  /** Only of tenants that have something waiting. */
  readonly #byTenant = new Map<string, Waiting>();
  #sequenceCount = 0;
  #permitCount = 0;

  constructor(limits: AdmissionLimits, now: () => number) {
    this.#limits = limits;
    this.#now = now;
  }

  get permitCount(): number {
    return this.#permitCount;
  }

  /** Sequences, waiting and running. */
  get insideCount(): number {
    return this.#sequenceCount;
  }

  load(): AdmissionLoad {
    return {
      maxSequenceCount: this.#limits.maxQueuedRequestCount,
      maxPromptTokenCount: this.#limits.maxQueuedTokenCount,
      sequenceCount: this.#queue.requestCount,
      promptTokenCount: this.#queue.promptTokenCount,
      retryAfterMs: this.#retryMs(1, 0),
    };
  }

  /** @throws RequestError 429 */
  enter(sequenceCount: number, tenant: string): Permit {
    this.#assertRoom(sequenceCount, tenant);
    this.#sequenceCount += sequenceCount;
    this.#permitCount += 1;
    /** Of each prompt; null once it waits no more. */
    const waiting: (number | null)[] = Array.from({ length: sequenceCount }, () => 0);
    this.#wait(tenant, sequenceCount, 0);
    let isHeld = true;
    const leave = (index: number): void => {
      const promptTokenCount = waiting[index] ?? null;
      if (promptTokenCount === null) return;
      waiting[index] = null;
      this.#wait(tenant, -1, -promptTokenCount);
    };
    return {
      takePrompts: (promptTokenCounts, serviceTier) => {
        const sum = promptTokenCounts.reduce((total, count) => total + count, 0);
        this.#assertTokenRoom(sum, tenant);
        this.#assertSoon(sum, serviceTier);
        for (const [index, count] of promptTokenCounts.entries()) waiting[index] = count;
        this.#wait(tenant, 0, sum);
      },
      begun: (index) => {
        const promptTokenCount = waiting[index] ?? null;
        if (promptTokenCount !== null) this.#drain.departed(promptTokenCount, this.#now());
        leave(index);
      },
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        for (const index of waiting.keys()) leave(index);
        this.#sequenceCount -= sequenceCount;
        this.#permitCount -= 1;
        if (this.#permitCount === 0) for (const wake of this.#waiters.splice(0)) wake();
      },
    };
  }

  /** Resolves when no permit is held. */
  whenEmpty(): Promise<void> {
    if (this.#permitCount === 0) return Promise.resolve();
    return new Promise((resolve) => this.#waiters.push(resolve));
  }

  #wait(tenant: string, requestCount: number, promptTokenCount: number): void {
    const own = this.#byTenant.get(tenant) ?? { requestCount: 0, promptTokenCount: 0 };
    this.#byTenant.set(tenant, own);
    for (const waiting of [this.#queue, own]) {
      waiting.requestCount += requestCount;
      waiting.promptTokenCount += promptTokenCount;
    }
    if (own.requestCount === 0) this.#byTenant.delete(tenant);
    this.#drain.waits(this.#queue.requestCount > 0, this.#now());
  }

  #assertRoom(sequenceCount: number, tenant: string): void {
    const { maxSequenceCount, maxQueuedRequestCount, tenantQueueShare } = this.#limits;
    if (this.#sequenceCount + sequenceCount > maxSequenceCount) {
      throw this.#overloaded(`The server already holds ${this.#sequenceCount} requests.`, sequenceCount, 0);
    }
    const { requestCount } = this.#queue;
    const excess = requestCount + sequenceCount - maxQueuedRequestCount;
    if (excess > 0 && requestCount > 0) {
      throw this.#overloaded(`${requestCount} requests wait already.`, excess, 0);
    }
    const own = this.#byTenant.get(tenant)?.requestCount ?? 0;
    const ownExcess = own + sequenceCount - Math.max(1, Math.floor(tenantQueueShare * maxQueuedRequestCount));
    if (ownExcess > 0 && own > 0) {
      throw this.#overloaded(
        `${own} requests of yours wait already, the most that one tenant may have in the queue.`,
        ownExcess,
        0,
      );
    }
  }

  /** The first prompt of an empty queue is always taken: whether it fits at all is not the door's to say. */
  #assertTokenRoom(promptTokenCount: number, tenant: string): void {
    const { maxQueuedTokenCount, tenantQueueShare } = this.#limits;
    const waiting = this.#queue.promptTokenCount;
    const excess = waiting + promptTokenCount - maxQueuedTokenCount;
    if (excess > 0 && waiting > 0) {
      throw this.#overloaded(`${waiting} prompt tokens wait already.`, 0, excess);
    }
    const own = this.#byTenant.get(tenant)?.promptTokenCount ?? 0;
    const ownExcess = own + promptTokenCount - Math.floor(tenantQueueShare * maxQueuedTokenCount);
    if (ownExcess > 0 && own > 0) {
      throw this.#overloaded(
        `${own} prompt tokens of yours wait already, the most that one tenant may have in the queue.`,
        0,
        ownExcess,
      );
    }
  }

  /** Better now than after the wait. */
  #assertSoon(promptTokenCount: number, serviceTier: ServiceTier): void {
    const { maxQueueWaitMs } = this.#limits;
    const waiting = this.#queue.promptTokenCount;
    if (maxQueueWaitMs === null || serviceTier === 'flex' || waiting === 0) return;
    const waitMs = this.#drain.predictMs(0, waiting, this.#now());
    if (waitMs === null || waitMs <= maxQueueWaitMs) return;
    const excess = waiting * (1 - maxQueueWaitMs / waitMs) + promptTokenCount;
    throw this.#overloaded(
      `This request would wait for about ${Math.ceil(waitMs / 1000)} s, and ${maxQueueWaitMs / 1000} s is the longest allowed.`,
      0,
      excess,
    );
  }

  #retryMs(requestCount: number, promptTokenCount: number): number {
    const drainMs = this.#drain.predictMs(requestCount, promptTokenCount, this.#now()) ?? DEFAULT_RETRY_MS;
    return Math.ceil(Math.min(MOST_RETRY_MS, Math.max(LEAST_RETRY_MS, drainMs)));
  }

  #overloaded(fault: string, requestCount: number, promptTokenCount: number): RequestError {
    return new RequestError({
      status: 429,
      type: 'rate_limit_error',
      code: 'rate_limit_exceeded',
      message: `${fault} Please try again in ${Math.ceil(this.#retryMs(requestCount, promptTokenCount) / 1000)} s.`,
      retryAfterMs: this.#retryMs(requestCount, promptTokenCount),
    });
  }
}
