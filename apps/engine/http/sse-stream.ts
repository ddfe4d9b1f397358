/**
 * Server-sent events on one response: each event is flushed as it is written, and a reader who does not read is waited
 * for within limits, then dropped. Written to by stream-answers.ts; knows nothing of what the events mean.
 */
import type { ServerResponse } from 'node:http';

export interface SseLimits {
  readonly maxUnsentBytes: number;
  readonly slowReaderLimitMs: number;
}

export class SseStream {
  readonly #response: ServerResponse;
  readonly #limits: SseLimits;
  /** One wait for all who write, while the reader is behind. */
  #draining: Promise<void> | null = null;

  constructor(response: ServerResponse, limits: SseLimits, headers: Readonly<Record<string, string>>) {
    this.#response = response;
    this.#limits = limits;
    response.writeHead(200, {
      'content-type': 'text/event-stream; charset=utf-8',
      'cache-control': 'no-cache',
      'x-accel-buffering': 'no',
      ...headers,
    });
  }

  /** Resolves when more may be written. An event for a reader who has gone is dropped. */
  async send(event: unknown): Promise<void> {
    await this.#write(`data: ${JSON.stringify(event)}\n\n`);
  }

  async end(): Promise<void> {
    await this.#write('data: [DONE]\n\n');
    if (!this.#response.destroyed) this.#response.end();
  }

  async #write(chunk: string): Promise<void> {
    if (this.#response.destroyed) return;
    this.#response.write(chunk);
    if (this.#response.writableLength > this.#limits.maxUnsentBytes) {
      this.#draining ??= this.#drained();
      await this.#draining;
    }
  }

  /** A reader who takes nothing for too long loses the connection, which cancels its sequences. */
  #drained(): Promise<void> {
    const response = this.#response;
    return new Promise((resolve) => {
      const timer = setTimeout(() => response.destroy(), this.#limits.slowReaderLimitMs);
      const settle = (): void => {
        this.#draining = null;
        clearTimeout(timer);
        response.off('drain', settle);
        response.off('close', settle);
        resolve();
      };
      response.on('drain', settle);
      response.on('close', settle);
    });
  }
}
