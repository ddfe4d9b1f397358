/**
 * The door: how many requests and prompt tokens may be inside at once, running or waiting. Over it a request is refused at
 * once with 429 rather than left to time out. A permit lives exactly as long as its stream. One per server; knows nothing
 * of workers.
 */
import { RequestError } from '../generation/request-error.ts';

export interface AdmissionLimits {
  readonly maxSequenceCount: number;
  readonly maxPromptTokenCount: number;
}

export interface Permit {
  /** @throws RequestError 429 where the prompts are too much beside what is inside */
  takePromptTokens(count: number): void;
  /** May be called more than once. */
  release(): void;
}

/** What is inside beside its bounds. */
export interface AdmissionLoad extends AdmissionLimits {
  readonly sequenceCount: number;
  readonly promptTokenCount: number;
  /** When a refused request is worth sending again. */
  readonly retryAfterMs: number;
}

const RETRY_AFTER_MS = 1000;

const overloaded = (message: string): RequestError =>
  new RequestError({
    status: 429,
    type: 'rate_limit_error',
    code: 'rate_limit_exceeded',
    message,
    retryAfterMs: RETRY_AFTER_MS,
  });

export class Admission {
  readonly #limits: AdmissionLimits;
  readonly #waiters: (() => void)[] = [];
  #sequenceCount = 0;
  #promptTokenCount = 0;
  #permitCount = 0;

  constructor(limits: AdmissionLimits) {
    this.#limits = limits;
  }

  get permitCount(): number {
    return this.#permitCount;
  }

  load(): AdmissionLoad {
    return {
      maxSequenceCount: this.#limits.maxSequenceCount,
      maxPromptTokenCount: this.#limits.maxPromptTokenCount,
      sequenceCount: this.#sequenceCount,
      promptTokenCount: this.#promptTokenCount,
      retryAfterMs: RETRY_AFTER_MS,
    };
  }

  /** @throws RequestError 429 */
  enter(sequenceCount: number): Permit {
    if (this.#sequenceCount + sequenceCount > this.#limits.maxSequenceCount) {
      throw overloaded(`The server already holds ${this.#sequenceCount} requests. Please try again soon.`);
    }
    this.#sequenceCount += sequenceCount;
    this.#permitCount += 1;
    let promptTokenCount = 0;
    let isHeld = true;
    return {
      takePromptTokens: (count) => {
        const isAlone = this.#promptTokenCount === 0;
        if (!isAlone && this.#promptTokenCount + count > this.#limits.maxPromptTokenCount) {
          throw overloaded(
            `The server already holds ${this.#promptTokenCount} prompt tokens. Please try again soon.`,
          );
        }
        promptTokenCount += count;
        this.#promptTokenCount += count;
      },
      release: () => {
        if (!isHeld) return;
        isHeld = false;
        this.#sequenceCount -= sequenceCount;
        this.#promptTokenCount -= promptTokenCount;
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
}
