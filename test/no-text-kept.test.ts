/**
 * What clients write stays with them: unique words in prompts, answers' parameters and broken bodies are sent through the
 * whole product, and then looked for in everything that it printed and wrote. A session's name, which is kept on purpose,
 * must be found the same way, or the search would prove nothing. And /metrics agrees with the rows in ClickHouse.
 */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTelemetryClient } from '@variator/clickhouse/client';
import { afterAll, beforeAll, expect, test } from 'vitest';
import { z } from 'zod';
import { type RunningProduct, startProduct } from './running-product.ts';
import { waitUntil } from './wait-until.ts';

let product: RunningProduct;
beforeAll(async () => {
  product = await startProduct({ flags: ['--model', 'models/stories-5m'] });
}, 120_000);
afterAll(async () => {
  await product?.stop();
  product?.removeData();
});

const session = 'kept-session-7f31c9';
let number = 0;
const secrets: string[] = [];
/** A word that no other text holds. */
const secret = (): string => {
  number += 1;
  const word = `qz${number}xjvkanary${(number * 7919).toString(36)}`;
  secrets.push(word);
  return word;
};

const post = async (path: string, body: unknown, headers: Record<string, string> = {}): Promise<number> => {
  const response = await fetch(`${product.inferenceUrl}${path}`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', ...headers },
    body: typeof body === 'string' ? body : JSON.stringify(body),
  });
  await response.text();
  return response.status;
};

test('no word of a prompt, a parameter or a broken body is in any log or file; the session is', async () => {
  const model = product.modelId;
  const chat = (content: string, more: object = {}) => ({
    model,
    messages: [{ role: 'user', content }],
    max_tokens: 3,
    ...more,
  });
  for (let round = 0; round < 20; round += 1) {
    const kept = { 'x-session-id': session };
    expect(
      await post('/v1/chat/completions', chat(secret(), { stop: [secret()], stream: round % 2 === 0 }), kept),
    ).toBe(200);
    expect(await post('/v1/completions', { model, prompt: [secret(), secret()], max_tokens: 2 }, kept)).toBe(
      200,
    );
    expect(await post('/v1/chat/completions', chat(secret(), { metadata: { [secret()]: secret() } }))).toBe(
      200,
    );
    expect(await post('/tokenize', { prompt: secret() })).toBe(200);
    expect(await post('/v1/chat/completions', chat(secret(), { temperature: secret() }))).toBe(400);
    expect(await post('/v1/chat/completions', chat(secret(), { [secret()]: 1 }))).toBe(400);
    expect(
      await post('/v1/chat/completions', {
        ...chat(secret()),
        messages: [{ role: secret(), content: secret() }],
      }),
    ).toBe(400);
    expect(await post('/v1/chat/completions', `{"model":"${model}","messages":"${secret()}`)).toBe(400);
    expect(
      await post('/v1/completions', { model, prompt: `${secret()} `.repeat(20_000), max_tokens: 1 }),
    ).toBe(400);
    expect(await post(`/v1/${secret()}`, {}, { authorization: `Bearer ${secret()}` })).toBe(404);
  }

  // ClickHouse compresses its files, so that its rows are read as it gives them.
  const stored: string[] = [];
  const store = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
  try {
    const rowCount = 20 * 4;
    const counted = await waitUntil('every request row', 30_000, async () => {
      const [found] = await store.query(
        `SELECT countIf(outcome != 'refused') AS rowCount, countIf(outcome = 'refused') AS refusedCount,
           sum(promptTokenCount) AS promptTokenCount FROM requests`,
        {},
        z.object({ rowCount: z.number(), refusedCount: z.number(), promptTokenCount: z.number() }),
      );
      return found?.rowCount === rowCount && found.refusedCount > 0 ? found : null;
    });
    const metrics = await (await fetch(`${product.inferenceUrl}/metrics`)).text();
    const total = (name: string): number =>
      [...metrics.matchAll(new RegExp(`^${name}\\{[^}]*\\} ([\\d.e+-]+)$`, 'gm'))].reduce(
        (sum, [, value]) => sum + Number(value),
        0,
      );
    expect(total('vllm:request_success_total')).toBe(counted.rowCount);
    expect(total('vllm:prompt_tokens_total')).toBe(counted.promptTokenCount);
    expect(total('vllm:generation_tokens_total')).toBeGreaterThan(rowCount);
    for (const table of ['requests', 'steps', 'tenants_hourly', 'regimes', 'model_fits']) {
      const rows = await store.query(`SELECT * FROM ${table}`, {}, z.record(z.string(), z.unknown()));
      stored.push(JSON.stringify(rows));
    }
  } finally {
    await store.close();
  }

  await product.stop();
  const written = [product.output(), ...stored, ...contents(product.dataDir)];
  expect(written.length).toBeGreaterThan(10);
  const isWritten = (word: string): boolean => written.some((text) => text.includes(word));
  expect(isWritten(session)).toBe(true);
  const forms = secrets.flatMap((word) => [word, Buffer.from(word).toString('base64').slice(2, -4)]);
  expect(forms.filter(isWritten)).toEqual([]);
}, 120_000);

/** Every file, byte for byte. */
function contents(folder: string): string[] {
  const entries = readdirSync(folder, { withFileTypes: true, recursive: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => readFileSync(join(entry.parentPath, entry.name), 'latin1'));
}
