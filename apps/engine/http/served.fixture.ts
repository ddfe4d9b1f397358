/** A whole endpoint on a real socket over an echo fleet, with the story model's tokenizer; for the tests of http/. */
import type { RequestRow, ServedRequestRow } from '@variator/clickhouse/request-row';
import type { SequenceSpec } from '@variator/scheduler/sequence';
import { createGeneration } from '../generation/generation.ts';
import {
  STORY_VOCABULARY_SIZE,
  storyDefaults,
  storyTokenizer,
} from '../generation/story-tokenizer.fixture.ts';
import { createMetrics } from '../telemetry/metrics.ts';
import { type EchoFleet, type EchoScript, echoFleet } from './echo-fleet.fixture.ts';
import { createInferenceServer, type InferenceServer, type InferenceServerOptions } from './server.ts';

export const MODEL = 'stories-5m';

export interface Served {
  readonly url: string;
  readonly port: number;
  readonly fleet: EchoFleet;
  /** Of requests that had sequences. */
  readonly rows: ServedRequestRow[];
  readonly refusals: RequestRow[];
  readonly server: InferenceServer;
  readonly logged: string[];
  /** Resolves when so many rows have been recorded. */
  rowsReach(count: number): Promise<void>;
  post(path: string, body: unknown, headers?: Record<string, string>): Promise<Response>;
  close(): Promise<void>;
}

export async function serve(
  scriptFor: (spec: SequenceSpec) => EchoScript,
  changes: Partial<InferenceServerOptions> & { readonly chatTemplate?: string } = {},
): Promise<Served> {
  const now = (): number => performance.timeOrigin + performance.now();
  const fleet = echoFleet(scriptFor, now);
  const rows: ServedRequestRow[] = [];
  const refusals: RequestRow[] = [];
  const logged: string[] = [];
  const waiters: { count: number; wake: () => void }[] = [];
  const generation = createGeneration({
    tokenizer: storyTokenizer(
      changes.chatTemplate === undefined ? {} : { chatTemplate: changes.chatTemplate },
    ),
    generationDefaults: storyDefaults,
    modelId: MODEL,
    maxModelLenTokens: 2048,
    vocabularySize: STORY_VOCABULARY_SIZE,
    threadCount: 1,
  });
  await generation.ready();
  const metrics = createMetrics({
    modelName: changes.servedModelNames?.[0] ?? MODEL,
    maxModelLenTokens: 2048,
    workers: () => fleet.workers(),
    telemetry: { pendingRowCount: () => rows.length, droppedRowCount: () => 0 },
  });
  const server = createInferenceServer({
    generation,
    fleet,
    metrics,
    recorder: {
      tokenGap: metrics.tokenGap,
      refused: (row) => refusals.push(row),
      record: (_table, row) => {
        rows.push(row);
        metrics.requestEnded(row);
        for (const waiter of waiters.splice(0)) {
          if (rows.length >= waiter.count) waiter.wake();
          else waiters.push(waiter);
        }
      },
    },
    objectives: () => ({ ttftMs: 10_000, itlMs: 10_000 }),
    version: '0.0.0',
    apiKeys: [],
    isTenantHeaderTrusted: false,
    tenantSecret: Buffer.alloc(32, 7),
    now,
    log: (line) => logged.push(line),
    ...changes,
  });
  const { url, port } = await server.listen({ host: '127.0.0.1', port: 0 });
  return {
    url,
    port,
    fleet,
    rows,
    refusals,
    server,
    logged,
    rowsReach: (count) =>
      rows.length >= count ? Promise.resolve() : new Promise((wake) => waiters.push({ count, wake })),
    post: (path, body, headers = {}) =>
      fetch(`${url}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: typeof body === 'string' || body instanceof Uint8Array ? body : JSON.stringify(body),
      }),
    close: async () => {
      await server.close();
      await generation.close();
    },
  };
}
