/**
 * One request over HTTP and what its client saw of the answer, streamed. Used by drive-sessions.ts by way of the command,
 * and by the probe. Never rejects, never retries: what went wrong is in the record, by kind.
 */
import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from 'node:http';
import { Agent as HttpsAgent, request as httpsRequest } from 'node:https';

export interface Endpoint {
  readonly url: string;
  readonly apiKey: string | null;
}

export interface AskedAnswer {
  readonly path: '/v1/chat/completions' | '/v1/completions';
  readonly body: Readonly<Record<string, unknown>>;
  readonly headers: Readonly<Record<string, string>>;
}

export interface SeenAnswer {
  readonly sentAt: number;
  /** null where no token came. */
  readonly firstTokenAt: number | null;
  readonly endedAt: number;
  /** Between one piece of the answer and the next. */
  readonly gapsMs: readonly number[];
  readonly text: string;
  /** null where the server gives none. */
  readonly tokenIds: readonly number[] | null;
  /** null where the server counts none. */
  readonly usage: AnswerUsage | null;
  /** '' where it was answered whole; else a kind such as `http-503`, `cut` or `timeout`. */
  readonly fault: string;
  /** For people. */
  readonly faultDetail: string;
}

export interface AnswerUsage {
  readonly promptTokenCount: number;
  readonly completionTokenCount: number;
  readonly cachedTokenCount: number;
}

/** Bodies of refusals are read this far. */
const MOST_REFUSAL_BYTES = 64 * 1024;
/** A line of a stream may be as long as this. */
const MOST_LINE_CHARS = 4 * 1024 * 1024;

interface StreamEvent {
  readonly choices?: readonly {
    readonly delta?: { readonly content?: string | null };
    readonly text?: string;
    readonly token_ids?: readonly number[] | null;
    readonly finish_reason?: string | null;
  }[];
  readonly usage?: {
    readonly prompt_tokens?: number;
    readonly completion_tokens?: number;
    readonly prompt_tokens_details?: { readonly cached_tokens?: number } | null;
  } | null;
  readonly error?: { readonly message?: string; readonly code?: string };
}

export class EndpointClient {
  readonly #endpoint: Endpoint;
  readonly #agent: HttpAgent | HttpsAgent;
  readonly #timeoutMs: number;

  constructor(endpoint: Endpoint, timeoutMs: number) {
    this.#endpoint = endpoint;
    this.#timeoutMs = timeoutMs;
    const options = { keepAlive: true, maxSockets: Number.POSITIVE_INFINITY, scheduling: 'lifo' as const };
    this.#agent = endpoint.url.startsWith('https:') ? new HttpsAgent(options) : new HttpAgent(options);
  }

  ask(asked: AskedAnswer, signal: AbortSignal): Promise<SeenAnswer> {
    return new Promise((resolve) => new Answering(resolve).send(asked, this.#request(asked, signal)));
  }

  close(): void {
    this.#agent.destroy();
  }

  #request(asked: AskedAnswer, signal: AbortSignal) {
    const { url, apiKey } = this.#endpoint;
    const send = url.startsWith('https:') ? httpsRequest : httpRequest;
    return send(`${url}${asked.path}`, {
      method: 'POST',
      agent: this.#agent,
      signal: AbortSignal.any([signal, AbortSignal.timeout(this.#timeoutMs)]),
      headers: {
        'content-type': 'application/json',
        accept: 'text/event-stream',
        ...(apiKey === null ? {} : { authorization: `Bearer ${apiKey}` }),
        ...asked.headers,
      },
    });
  }
}

/** What is known of one answer while it comes. Ends once. */
class Answering {
  readonly #resolve: (seen: SeenAnswer) => void;
  readonly #sentAt = performance.now();
  readonly #gapsMs: number[] = [];
  readonly #texts: string[] = [];
  #tokenIds: number[] | null = null;
  #firstTokenAt: number | null = null;
  #lastTokenAt = 0;
  #usage: AnswerUsage | null = null;
  #isFinished = false;
  #isOver = false;

  constructor(resolve: (seen: SeenAnswer) => void) {
    this.#resolve = resolve;
  }

  send(asked: AskedAnswer, request: ReturnType<typeof httpRequest>): void {
    request.on('response', (response) => this.#read(response));
    request.on('error', (error: NodeJS.ErrnoException) => this.#end(...faultOf(error)));
    request.end(JSON.stringify(asked.body));
  }

  #read(response: IncomingMessage): void {
    response.setEncoding('utf8');
    const status = response.statusCode ?? 0;
    response.on('error', (error: NodeJS.ErrnoException) => this.#end(...faultOf(error)));
    if (status !== 200) {
      let body = '';
      response.on('data', (piece: string) => {
        if (body.length < MOST_REFUSAL_BYTES) body += piece;
      });
      response.on('close', () => this.#end(`http-${status}`, refusalText(body)));
      return;
    }
    if (!/^text\/event-stream/.test(response.headers['content-type'] ?? '')) {
      response.destroy();
      this.#end('not-a-stream', `content-type ${response.headers['content-type'] ?? 'missing'}`);
      return;
    }
    let rest = '';
    response.on('data', (piece: string) => {
      const lines = (rest + piece).split('\n');
      rest = lines.pop() ?? '';
      const now = performance.now();
      for (const line of lines) this.#takeLine(line, now);
      if (rest.length <= MOST_LINE_CHARS) return;
      response.destroy();
      this.#end('bad-event', 'a line of the stream has no end');
    });
    // What ends without its last event was cut, whatever the socket says.
    response.on('close', () =>
      this.#isFinished ? this.#end('', '') : this.#end('cut', 'the stream ended before the answer did'),
    );
  }

  #takeLine(line: string, now: number): void {
    if (!line.startsWith('data:')) return;
    const data = line.slice(5).trim();
    if (data === '[DONE]') {
      this.#isFinished = true;
      return;
    }
    let event: StreamEvent | null;
    try {
      event = JSON.parse(data) as StreamEvent | null;
    } catch {
      event = null;
    }
    if (event === null || typeof event !== 'object') this.#end('bad-event', data.slice(0, 200));
    else if (event.error) this.#end('error-event', event.error.message ?? event.error.code ?? '');
    else this.#takeEvent(event, now);
  }

  #takeEvent({ choices, usage }: StreamEvent, now: number): void {
    const choice = choices?.[0];
    const text = choice?.delta?.content ?? choice?.text ?? '';
    const ids = choice?.token_ids ?? [];
    if (text !== '' || ids.length > 0) {
      if (this.#firstTokenAt === null) this.#firstTokenAt = now;
      else this.#gapsMs.push(now - this.#lastTokenAt);
      this.#lastTokenAt = now;
      this.#texts.push(text);
      if (ids.length > 0) {
        this.#tokenIds ??= [];
        for (const id of ids) this.#tokenIds.push(id);
      }
    }
    // Some servers send no [DONE].
    if (choice?.finish_reason) this.#isFinished = true;
    if (usage) {
      this.#usage = {
        promptTokenCount: usage.prompt_tokens ?? 0,
        completionTokenCount: usage.completion_tokens ?? 0,
        cachedTokenCount: usage.prompt_tokens_details?.cached_tokens ?? 0,
      };
    }
  }

  #end(fault: string, faultDetail: string): void {
    if (this.#isOver) return;
    this.#isOver = true;
    this.#resolve({
      sentAt: this.#sentAt,
      firstTokenAt: this.#firstTokenAt,
      endedAt: performance.now(),
      gapsMs: this.#gapsMs,
      text: this.#texts.join(''),
      tokenIds: this.#tokenIds,
      usage: this.#usage,
      fault,
      faultDetail,
    });
  }
}

function faultOf(error: NodeJS.ErrnoException): [fault: string, detail: string] {
  const { cause } = error as { cause?: unknown };
  if (error.name === 'TimeoutError' || (cause as Error | undefined)?.name === 'TimeoutError') {
    return ['timeout', 'no whole answer within the limit (--timeout)'];
  }
  if (error.name === 'AbortError') return ['stopped', ''];
  if (error.code === 'ECONNREFUSED' || error.code === 'ENOTFOUND') return ['unreachable', error.message];
  return ['cut', error.message];
}

function refusalText(body: string): string {
  try {
    const { error } = JSON.parse(body) as { error?: { message?: string } | string };
    return (typeof error === 'string' ? error : error?.message) ?? body.slice(0, 200);
  } catch {
    return body.slice(0, 200);
  }
}
