/**
 * Drives an OpenAI-compatible endpoint through a phase and measures what its clients see. Used by replay, benches and the
 * end-to-end test. Times are the client's own; a failed request is counted with its reason, never retried.
 */
import { setTimeout as pause } from 'node:timers/promises';
import type { Phase, PlannedRequest } from './workload.ts';

export interface ClientRecord {
  readonly startedAt: number;
  readonly ttftMs: number | null;
  readonly gapsMs: readonly number[];
  readonly e2eMs: number;
  readonly promptTokenCount: number;
  readonly completionTokenCount: number;
  /** '' when it was answered whole. */
  readonly fault: string;
}

export interface Endpoint {
  readonly url: string;
  readonly modelId: string;
  readonly apiKey: string | null;
}

/** Resolves when the phase's time is over and every request under way has ended. */
export async function drivePhase(
  endpoint: Endpoint,
  phase: Phase,
  onRecord: (record: ClientRecord) => void,
  signal: AbortSignal,
): Promise<void> {
  const startedAt = performance.now();
  const underWay = new Set<Promise<void>>();
  const launch = (request: PlannedRequest) => {
    const sent = send(endpoint, request, signal).then(onRecord);
    const tracked = sent.finally(() => underWay.delete(tracked));
    underWay.add(tracked);
  };
  const elapsed = () => performance.now() - startedAt;
  for (const request of phase.requests) {
    if (request.atMs === null) while (underWay.size >= phase.concurrency) await Promise.race(underWay);
    else if (request.atMs > elapsed()) await pause(request.atMs - elapsed());
    if (signal.aborted || elapsed() >= phase.durationMs) break;
    launch(request);
  }
  await Promise.all(underWay);
  const rest = phase.durationMs - elapsed();
  if (rest > 0 && !signal.aborted && phase.requests.length > 0) await pause(rest);
}

/** One chat completion, streamed or whole. Never rejects: what went wrong is in the record. */
export async function send(
  endpoint: Endpoint,
  request: PlannedRequest,
  signal: AbortSignal,
): Promise<ClientRecord> {
  const startedAt = performance.now();
  const tokensAt: number[] = [];
  let usage = { prompt_tokens: 0, completion_tokens: 0 };
  let fault = '';
  try {
    const response = await fetch(`${endpoint.url}/v1/chat/completions`, {
      method: 'POST',
      headers: {
        'content-type': 'application/json',
        'x-session-id': request.session,
        ...(endpoint.apiKey === null ? {} : { authorization: `Bearer ${endpoint.apiKey}` }),
      },
      body: JSON.stringify({
        model: endpoint.modelId,
        messages: [{ role: 'user', content: request.prompt }],
        max_tokens: request.maxTokens,
        temperature: 0,
        ignore_eos: true,
        ...(request.isStreamed ? { stream: true, stream_options: { include_usage: true } } : {}),
      }),
      signal: AbortSignal.any([signal, AbortSignal.timeout(300_000)]),
    });
    if (!response.ok || !response.body) {
      const body = (await response.json()) as { error?: { message?: string } };
      fault = `${response.status} ${body.error?.message ?? ''}`.trim();
    } else if (request.isStreamed) {
      for await (const event of serverSentEvents(response.body)) {
        if (event.error) fault = event.error.message;
        if (event.choices?.[0]?.delta?.content) tokensAt.push(performance.now());
        if (event.usage) usage = event.usage;
      }
    } else {
      usage = ((await response.json()) as { usage: typeof usage }).usage;
    }
  } catch (error) {
    fault = signal.aborted ? 'stopped' : (error as Error).message;
  }
  const [first] = tokensAt;
  return {
    startedAt,
    ttftMs: first === undefined ? null : first - startedAt,
    gapsMs: tokensAt.slice(1).map((at, index) => at - (tokensAt[index] ?? at)),
    e2eMs: performance.now() - startedAt,
    promptTokenCount: usage.prompt_tokens,
    completionTokenCount: usage.completion_tokens,
    fault,
  };
}

interface StreamEvent {
  readonly choices?: readonly { readonly delta?: { readonly content?: string } }[];
  readonly usage?: { prompt_tokens: number; completion_tokens: number } | null;
  readonly error?: { readonly message: string };
}

async function* serverSentEvents(body: ReadableStream<Uint8Array>): AsyncGenerator<StreamEvent> {
  const decoder = new TextDecoder();
  let rest = '';
  for await (const piece of body) {
    rest += decoder.decode(piece, { stream: true });
    const lines = rest.split('\n');
    rest = lines.pop() ?? '';
    for (const line of lines) {
      if (!line.startsWith('data: ') || line === 'data: [DONE]') continue;
      yield JSON.parse(line.slice(6)) as StreamEvent;
    }
  }
}

export interface Percentiles {
  readonly p50: number;
  readonly p95: number;
  readonly p99: number;
}

/** Nearest-rank percentiles; null of nothing. */
export function percentiles(values: readonly number[]): Percentiles | null {
  if (values.length === 0) return null;
  const sorted = [...values].sort((a, b) => a - b);
  const at = (share: number) =>
    sorted[Math.min(sorted.length - 1, Math.ceil(share * sorted.length) - 1)] ?? 0;
  return { p50: at(0.5), p95: at(0.95), p99: at(0.99) };
}
