/**
 * One sequence on its way through the fleet, as the endpoint sees it: text as it becomes certain, then how it ended; and
 * exactly one request row, written when the fleet has given the account. Whoever holds a run pulls it until null, or
 * abandons it: the sequence of a client who left is cancelled at once, but read on until its account has come.
 */
import type { RequestRow, ServedRequestRow } from '@variator/clickhouse/request-row';
import type { TokenLogprobs } from '@variator/scheduler/sequence';
import type { SequenceEvent, SequenceStream } from '../fleet/fleet.ts';
import type { AnswerText } from '../generation/answer-text.ts';
import type { RequestError } from '../generation/request-error.ts';
import { serverError, unavailable } from './error-body.ts';
import { endOfRow, type RequestFacts, requestRow } from './request-record.ts';
import { expired } from './request-terms.ts';
import { SequenceTiming } from './sequence-timing.ts';

/** What is known of the HTTP exchange; shared by its sequences, written by the endpoint. */
export interface Exchange {
  /** True once a response head of 200 has been sent. */
  hasBegun: boolean;
  isClientGone: boolean;
}

export interface RequestRecorder {
  record(table: 'requests', row: ServedRequestRow): void;
  /** Of a request that had no sequence. */
  refused(row: RequestRow): void;
  /** Between two tokens of a request, as they arrive. */
  tokenGap(gapMs: number): void;
}

export type AnswerEvent =
  | {
      readonly kind: 'delta';
      readonly text: string;
      readonly tokenId: number;
      /** null where not asked for. */
      readonly logprobs: TokenLogprobs | null;
    }
  /** Always the last. `text`: what was held back. */
  | {
      readonly kind: 'finished';
      readonly text: string;
      readonly reason: 'stop' | 'length';
      readonly promptTokenCount: number;
      readonly cachedTokenCount: number;
      /** Tokens up to the end of the answer; the row counts what the device computed. */
      readonly completionTokenCount: number;
    }
  | { readonly kind: 'failed'; readonly error: RequestError };

type EndedEvent = Extract<SequenceEvent, { kind: 'ended' }>;

export class AnswerRun {
  readonly #stream: SequenceStream;
  readonly #events: AsyncIterator<SequenceEvent>;
  readonly #answer: AnswerText;
  readonly #facts: RequestFacts;
  readonly #exchange: Exchange;
  readonly #recorder: RequestRecorder;
  readonly #now: () => number;
  readonly #onFirstToken: () => void;
  readonly #timing: SequenceTiming;
  #tokenCount = 0;
  #isStopped = false;
  #isExpired = false;
  #isOver = false;

  constructor(parts: {
    readonly stream: SequenceStream;
    readonly answer: AnswerText;
    readonly facts: RequestFacts;
    readonly exchange: Exchange;
    readonly recorder: RequestRecorder;
    readonly now: () => number;
    readonly onFirstToken: () => void;
  }) {
    this.#stream = parts.stream;
    this.#events = parts.stream[Symbol.asyncIterator]();
    this.#answer = parts.answer;
    this.#facts = parts.facts;
    this.#exchange = parts.exchange;
    this.#recorder = parts.recorder;
    this.#now = parts.now;
    this.#onFirstToken = parts.onFirstToken;
    this.#timing = new SequenceTiming(parts.facts.arrivedAt);
  }

  /** The next event; null after the last. */
  async next(): Promise<AnswerEvent | null> {
    while (!this.#isOver) {
      const event = await this.#nextFleetEvent();
      if (event?.kind === 'token') {
        if (this.#isStopped) continue;
        return this.#takeToken(event);
      }
      this.#isOver = true;
      return this.#finish(event);
    }
    return null;
  }

  cancel(): void {
    if (!this.#isOver) this.#stream.cancel();
  }

  /** Its deadline has passed and it is still here: its worker has not ended it, or it has none. */
  expire(): void {
    this.#isExpired = true;
    this.cancel();
  }

  /** Cancels, and reads on until the account has come and the row is written. */
  async abandon(): Promise<void> {
    this.cancel();
    while ((await this.next()) !== null) {
      // What a client who left would have been sent.
    }
  }

  #takeToken({ tokenId, at, logprobs }: Extract<SequenceEvent, { kind: 'token' }>): AnswerEvent {
    const gapMs = this.#timing.token(at);
    if (gapMs === null) this.#onFirstToken();
    else this.#recorder.tokenGap(gapMs);
    this.#tokenCount += 1;
    const step = this.#answer.push(tokenId);
    if (step.isStopped) {
      this.#isStopped = true;
      this.#stream.stop();
    }
    return { kind: 'delta', text: step.text, tokenId, logprobs: logprobs ?? null };
  }

  /** null where the stream broke off without its last event. */
  async #nextFleetEvent(): Promise<SequenceEvent | null> {
    try {
      const next = await this.#events.next();
      return next.done === true ? null : next.value;
    } catch {
      // The fleet lost the sequence; #finish makes it an error for the client and a row with an open account.
      return null;
    }
  }

  #finish(event: EndedEvent | null): AnswerEvent {
    const error = this.#failure(event);
    const isAnswered = this.#facts.isStreamed ? this.#exchange.hasBegun : error === null;
    const status = isAnswered ? 200 : this.#exchange.isClientGone ? 499 : (error?.status ?? 200);
    const ended = endOfRow(event, this.#now(), this.#facts, this.#tokenCount);
    const isExpired = this.#isExpired && ended.reason === 'cancelled';
    this.#recorder.record(
      'requests',
      requestRow(this.#facts, this.#timing.summary(), {
        ...ended,
        reason: this.#isStopped && ended.reason !== 'error' ? 'stop' : isExpired ? 'expired' : ended.reason,
        status,
        errorCode: error === null || this.#exchange.isClientGone ? '' : error.code,
      }),
    );
    if (error !== null) return { kind: 'failed', error };
    return {
      kind: 'finished',
      text: this.#answer.end(),
      reason: !this.#isStopped && ended.reason === 'length' ? 'length' : 'stop',
      promptTokenCount: this.#facts.promptTokenCount,
      cachedTokenCount: ended.cachedTokenCount,
      completionTokenCount: this.#tokenCount,
    };
  }

  #failure(event: EndedEvent | null): RequestError | null {
    if (this.#isStopped) return null;
    const reason = event?.ended.reason;
    if (reason === 'stop' || reason === 'length') return null;
    if (reason === 'expired' || (reason === 'cancelled' && this.#isExpired)) {
      return expired(this.#facts.terms, this.#now() - this.#facts.arrivedAt);
    }
    if (reason === 'cancelled') return unavailable('The server cancelled this request; please try again.');
    if (event === null || event.isLost) {
      return unavailable(
        'The worker was lost while it computed this request; please try again.',
        'worker_lost',
      );
    }
    return serverError('The server failed while it computed this request.');
  }
}
