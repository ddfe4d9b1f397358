/**
 * Clients that leave: raw sockets that ask for a streamed answer and hang up at a moment of their choice, or read to the
 * end. Used by streams.test.ts and the bench of the same name; raw, because a client library would finish what it began.
 */
import { connect } from 'node:net';

/** Where a client hangs up: in its own headers or body, once all is sent (`sent`), a little later, or after tokens. */
export type Leaving =
  | { readonly at: 'headers' | 'body' | 'sent' }
  | { readonly at: 'wait'; readonly ms: number }
  | { readonly at: 'token'; readonly count: number }
  | { readonly at: 'end' };

export interface LeavingClient {
  readonly session: string;
  readonly leaving: Leaving;
  /** Epoch milliseconds. */
  readonly leftAt: number;
  readonly status: number;
  readonly eventCount: number;
  /** True where the stream came to its [DONE]. */
  readonly isDone: boolean;
  readonly text: string;
}

export interface LeavingRequest {
  readonly url: string;
  readonly session: string;
  readonly body: object;
  readonly leaving: Leaving;
  readonly apiKey?: string;
}

/** Resolves when the client has left or its connection has ended. */
export function askAndLeave(request: LeavingRequest): Promise<LeavingClient> {
  const { url, session, leaving } = request;
  const { hostname, port } = new URL(url);
  const body = JSON.stringify(request.body);
  const head = [
    'POST /v1/completions HTTP/1.1',
    `host: ${hostname}`,
    'content-type: application/json',
    `content-length: ${Buffer.byteLength(body)}`,
    `x-session-id: ${session}`,
    ...(request.apiKey === undefined ? [] : [`authorization: Bearer ${request.apiKey}`]),
    'connection: close',
    '\r\n',
  ].join('\r\n');
  return new Promise((resolve) => {
    const chunks: string[] = [];
    let eventCount = 0;
    let isOver = false;
    const socket = connect(Number(port), hostname);
    const over = (): void => {
      if (isOver) return;
      isOver = true;
      socket.destroy();
      const text = chunks.join('');
      resolve({
        session,
        leaving,
        leftAt: performance.timeOrigin + performance.now(),
        status: Number(/^HTTP\/1.1 (\d+)/.exec(text)?.[1] ?? 0),
        eventCount,
        isDone: text.includes('data: [DONE]'),
        text,
      });
    };
    socket.on('connect', () => {
      if (leaving.at === 'headers') socket.write(head.slice(0, head.length / 2), over);
      else if (leaving.at === 'body') socket.write(head + body.slice(0, body.length / 2), over);
      else {
        socket.write(head + body, () => {
          if (leaving.at === 'sent') over();
          if (leaving.at === 'wait') setTimeout(over, leaving.ms);
        });
      }
    });
    socket.setEncoding('utf8');
    socket.on('data', (chunk: string) => {
      chunks.push(chunk);
      // An event that is torn between two chunks is not counted; nothing here needs the exact number.
      for (let at = chunk.indexOf('data: {'); at >= 0; at = chunk.indexOf('data: {', at + 1)) eventCount += 1;
      if (leaving.at === 'token' && eventCount >= leaving.count) over();
    });
    // Whoever is refused or dropped has left, too.
    socket.on('error', over);
    socket.on('close', over);
  });
}
