/**
 * A batch on the product itself while its gateway, then its worker, are killed outright again and again: every line has
 * exactly one result, in order, the same as online, and none that was done is computed again.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { setTimeout as pause } from 'node:timers/promises';
import { createTelemetryClient } from '@variator/clickhouse/client';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { canSeeProcesses, type PartName, partPid } from './process-tree.ts';
import { type RunningProduct, startProduct } from './running-product.ts';
import { waitUntil } from './wait-until.ts';

if (!canSeeProcesses) console.warn('SKIPPED: killing parts of the product needs /proc');

const LINE_COUNT = 240;
const GATEWAY_KILLS = 5;
const MAX_TOKENS = 24;

let product: RunningProduct;
let client: OpenAI;

const bodyOf = (index: number) => ({
  model: product.modelId,
  prompt: `Story ${index}: once upon a time`,
  max_tokens: MAX_TOKENS,
  temperature: 0,
  ignore_eos: true,
});

const lineSchema = z.object({
  custom_id: z.string(),
  response: z.object({
    status_code: z.number(),
    body: z.object({ choices: z.tuple([z.object({ text: z.string() })]) }),
  }),
});

/** Polls through restarts: while the gateway is away there is no answer. */
const until = <Answer>(what: string, ask: () => Promise<Answer | null | false>): Promise<Answer> =>
  waitUntil(what, 60_000, ask);

const doneCount = async (batchId: string): Promise<number> =>
  until('the batch tells its progress', async () => {
    const batch = await client.batches.retrieve(batchId);
    return { count: batch.request_counts?.completed ?? 0 };
  }).then(({ count }) => count);

async function kill(part: PartName): Promise<void> {
  const pid = await until(`there is a ${part}`, async () => partPid(product.pid, part));
  process.kill(pid, 'SIGKILL');
  await until(`another ${part} takes over`, async () => {
    const next = partPid(product.pid, part);
    return next !== null && next !== pid;
  });
}

async function submit(): Promise<string> {
  const lines = Array.from({ length: LINE_COUNT }, (_, index) =>
    JSON.stringify({
      custom_id: `line ${index}`,
      method: 'POST',
      url: '/v1/completions',
      body: bodyOf(index),
    }),
  );
  const file = await client.files.create({
    file: new File([lines.join('\n')], 'stories.jsonl'),
    purpose: 'batch',
  });
  const batch = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/completions',
    completion_window: '24h',
  });
  return batch.id;
}

async function outputOf(batchId: string): Promise<z.infer<typeof lineSchema>[]> {
  const batch = await until('the batch has ended', async () => {
    const now = await client.batches.retrieve(batchId);
    return now.status === 'in_progress' || now.status === 'finalizing' ? null : now;
  });
  expect(batch).toMatchObject({
    status: 'completed',
    request_counts: { total: LINE_COUNT, completed: LINE_COUNT, failed: 0 },
    error_file_id: null,
  });
  const text = await (await client.files.content(batch.output_file_id ?? '')).text();
  return text
    .trimEnd()
    .split('\n')
    .map((line) => lineSchema.parse(JSON.parse(line)));
}

describe.skipIf(!canSeeProcesses)('a batch through restarts', () => {
  beforeAll(async () => {
    product = await startProduct({
      flags: ['--model', 'models/stories-5m', '--path', 'reference', '--threads', '1'],
    });
    client = new OpenAI({ baseURL: `${product.inferenceUrl}/v1`, apiKey: 'any', maxRetries: 0 });
  });
  afterAll(async () => {
    await product?.stop();
    product?.removeData();
  });

  test('every line has one result, in order, as online, and what was done is not done again', async () => {
    const batchId = await submit();
    const seen: number[] = [];
    for (let kills = 0; kills < GATEWAY_KILLS; kills += 1) {
      const before = await doneCount(batchId);
      await until('some lines more are done', async () => {
        const now = await doneCount(batchId);
        return now > before + 3 || now === LINE_COUNT;
      });
      seen.push(await doneCount(batchId));
      await kill('gateway');
      const after = await doneCount(batchId);
      expect(after, 'what was done is still done').toBeGreaterThanOrEqual(seen.at(-1) ?? 0);
    }
    await kill('worker');
    const lines = await outputOf(batchId);
    expect(seen[0], 'the first kill is mid-batch').toBeLessThan(LINE_COUNT);
    expect(lines.map((line) => line.custom_id)).toEqual(
      Array.from({ length: LINE_COUNT }, (_, index) => `line ${index}`),
    );
    for (const index of [0, 1, 57, 119, LINE_COUNT - 1]) {
      const online = await client.completions.create(bodyOf(index));
      expect(lines[index]?.response.body.choices[0].text).toBe(online.choices[0]?.text);
    }
    // Only lines that were under way at a kill were computed twice; their rows may be lost with the gateway.
    const rowCount = await until('their rows are stored', async () => {
      await pause(500);
      return okRowCount();
    });
    expect(rowCount).toBeLessThanOrEqual(LINE_COUNT + 5 + (GATEWAY_KILLS + 1) * 16);
  }, 120_000);
});

async function okRowCount(): Promise<number> {
  const telemetry = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
  try {
    const [row] = await telemetry.query(
      `SELECT count() AS count FROM requests WHERE finishReason = 'length' AND status = 200`,
      {},
      z.object({ count: z.number() }),
    );
    return row?.count ?? 0;
  } finally {
    await telemetry.close();
  }
}
