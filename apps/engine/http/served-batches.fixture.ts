/** The endpoint with files and batches over an echo fleet, on a real socket and a real folder; for the batch tests. */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { SequenceSpec } from '@variator/scheduler/sequence';
import OpenAI from 'openai';
import { type BatchesOptions, type BatchLimits, openBatches } from '../batches/open-batches.ts';
import type { EchoScript } from './echo-fleet.fixture.ts';
import { MODEL, type Served, serve } from './served.fixture.ts';
import type { InferenceServerOptions } from './server.ts';

export interface ServedBatches extends Served {
  readonly client: OpenAI;
  readonly folder: string;
  /** Moves the clock of files and batches. */
  passMs(ms: number): void;
  /** Ends it and keeps the folder for the next. */
  leave(): Promise<void>;
}

export interface BatchesSetup extends Partial<Omit<BatchesOptions, 'limits'>> {
  readonly limits?: Partial<BatchLimits>;
  readonly scriptFor?: (spec: SequenceSpec) => EchoScript;
  readonly server?: Partial<InferenceServerOptions>;
}

export async function serveBatches(setup: BatchesSetup = {}): Promise<ServedBatches> {
  const folder = setup.folder ?? mkdtempSync(join(tmpdir(), 'variator-batches-'));
  const logged: string[] = [];
  let passedMs = 0;
  const batches = await openBatches({
    folder,
    capacity: () => ({ slotCount: 8, kvUsedShare: 0 }),
    now: () => Date.now() + passedMs,
    log: (line) => logged.push(line),
    ...setup,
    limits: { maxFileBytes: 200_000_000, maxLineCount: 50_000, maxStoredBytes: 2e9, ...setup.limits },
  });
  const served = await serve(setup.scriptFor ?? (() => ({ tokenIds: [5, 6, 2] })), {
    ...setup.server,
    batches,
  });
  await batches.start(served.server.lines);
  const leave = async (): Promise<void> => {
    await batches.close(0);
    await served.close();
  };
  return {
    ...served,
    logged,
    client: new OpenAI({ baseURL: `${served.url}/v1`, apiKey: 'any', maxRetries: 0 }),
    folder,
    passMs: (ms) => {
      passedMs += ms;
    },
    leave,
    close: async () => {
      await leave();
      rmSync(folder, { recursive: true, force: true });
    },
  };
}

export const chatLine = (customId: string, body: object = {}): string =>
  JSON.stringify({
    custom_id: customId,
    method: 'POST',
    url: '/v1/chat/completions',
    body: { model: MODEL, messages: [{ role: 'user', content: customId }], ...body },
  });

export const completionLine = (customId: string, body: object = {}): string =>
  JSON.stringify({
    custom_id: customId,
    method: 'POST',
    url: '/v1/completions',
    body: { model: MODEL, prompt: customId, ...body },
  });

export async function uploaded(client: OpenAI, lines: readonly string[] | string): Promise<string> {
  const content = typeof lines === 'string' ? lines : `${lines.join('\n')}\n`;
  const file = await client.files.create({ file: new File([content], 'in.jsonl'), purpose: 'batch' });
  return file.id;
}

export async function submitted(
  client: OpenAI,
  lines: readonly string[] | string,
  endpoint: '/v1/chat/completions' | '/v1/completions' = '/v1/completions',
): Promise<OpenAI.Batch> {
  const inputFileId = await uploaded(client, lines);
  return client.batches.create({ input_file_id: inputFileId, endpoint, completion_window: '24h' });
}

/** The batch once it is in one of these states. */
export async function reaches(
  client: OpenAI,
  batchId: string,
  ...statuses: readonly OpenAI.Batch['status'][]
): Promise<OpenAI.Batch> {
  for (let waitedMs = 0; waitedMs < 20_000; waitedMs += 20) {
    const batch = await client.batches.retrieve(batchId);
    if (statuses.includes(batch.status)) return batch;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  const batch = await client.batches.retrieve(batchId);
  throw new Error(`Batch ${batchId} stayed ${batch.status}: ${JSON.stringify(batch)}`);
}

export const ended = (client: OpenAI, batchId: string): Promise<OpenAI.Batch> =>
  reaches(client, batchId, 'completed', 'failed', 'expired', 'cancelled');

export interface OutputLine {
  readonly id: string;
  readonly custom_id: string;
  readonly response: {
    readonly status_code: number;
    readonly request_id: string;
    readonly body: {
      readonly choices: readonly {
        readonly text?: string;
        readonly message?: { readonly content: string };
      }[];
      readonly error?: { readonly code: string; readonly message: string; readonly param: string | null };
      readonly usage: { readonly total_tokens: number };
    };
  } | null;
  readonly error: { readonly code: string; readonly message: string } | null;
}

export async function linesOf(client: OpenAI, fileId: string | null | undefined): Promise<OutputLine[]> {
  if (fileId == null) return [];
  const text = await (await client.files.content(fileId)).text();
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line) as OutputLine);
}
