/**
 * The books of the whole product, and its keys: what clients sent through OpenAI's own client is in ClickHouse once, step
 * by step and request by request, to the device millisecond; and neither key is seen anywhere but where it is asked for.
 */
import { readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { createTelemetryClient, type TelemetryClient } from '@variator/clickhouse/client';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { adminClient } from '../apps/engine/cli/admin-client.ts';
import { canSeeProcesses, livingProcesses } from './process-tree.ts';
import { type RunningProduct, startProduct } from './running-product.ts';
import { waitUntil } from './wait-until.ts';

const apiKey = 'sk-clients-5b1f0c77e2';
const adminKey = 'people-9d24a6f3c810';

let product: RunningProduct;
let client: OpenAI;
let store: TelemetryClient;

beforeAll(async () => {
  product = await startProduct({
    flags: ['--model', 'models/stories-5m'],
    env: { VARIATOR_API_KEY: apiKey, VARIATOR_ADMIN_KEY: adminKey },
  });
  client = new OpenAI({ baseURL: `${product.inferenceUrl}/v1`, apiKey, maxRetries: 0 });
  store = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
}, 120_000);
afterAll(async () => {
  await store?.close();
  await product?.stop();
  product?.removeData();
});

type Ending = 'stop' | 'length' | 'cancelled';

/** A request of each kind; resolves with the ids of its sequences and how they must have ended. */
const kinds: ((round: number) => Promise<Record<string, Ending>>)[] = [
  async (round) => {
    const answer = await client.completions.create({
      model: product.modelId,
      prompt: `Once upon a time there were ${round} cats`,
      max_tokens: 24,
      temperature: 0,
      ...{ ignore_eos: true },
    });
    return { [answer.id]: 'length' };
  },
  async (round) => {
    const stream = await client.chat.completions.create({
      model: product.modelId,
      messages: [{ role: 'user', content: `Tell me story number ${round}.` }],
      max_tokens: 30,
      seed: round,
      stream: true,
      ...{ ignore_eos: true },
    });
    let id = '';
    for await (const chunk of stream) id = chunk.id;
    return { [id]: 'length' };
  },
  async (round) => {
    const prompt = ['The red ball', 'A tall tree', `Boat ${round}`];
    const answer = await client.completions.create({
      model: product.modelId,
      prompt,
      max_tokens: 12,
      ...{ ignore_eos: true },
    });
    return Object.fromEntries(prompt.map((_, index) => [`${answer.id}-${index}`, 'length' as const]));
  },
  async () => {
    const answer = await client.completions.create({
      model: product.modelId,
      prompt: 'Once upon a time',
      max_tokens: 200,
      temperature: 0,
      stop: ['.'],
    });
    expect(answer.choices[0]?.finish_reason).toBe('stop');
    return { [answer.id]: 'stop' };
  },
  async (round) => {
    const stream = await client.completions.create({
      model: product.modelId,
      prompt: `A long story of ${round} friends`,
      max_tokens: 2000,
      stream: true,
      ...{ ignore_eos: true },
    });
    for await (const { id } of stream) {
      stream.controller.abort();
      return { [id]: 'cancelled' };
    }
    throw new Error('The stream to be cancelled had no event.');
  },
];
const ROUNDS = 6;

const requestRow = z.object({ requestId: z.string(), finishReason: z.string(), isAccountFinal: z.boolean() });
const FOUR_ACCOUNTS = 'prefillDeviceMs + decodeDeviceMs + speculationWasteDeviceMs + recomputeDeviceMs';

describe('the books of mixed requests', () => {
  const sent = new Map<string, Ending>();

  test('every sequence that was sent is one row, a refused request another, and nothing else is', async () => {
    for (let round = 0; round < ROUNDS; round += 1) {
      const ended = await Promise.all(kinds.map((ask) => ask(round)));
      for (const [id, ending] of ended.flatMap(Object.entries)) sent.set(id, ending as Ending);
    }
    // Refused before it became a sequence.
    await expect(
      client.completions.create({ model: product.modelId, prompt: '', max_tokens: 4 }),
    ).rejects.toMatchObject({ status: 400 });
    expect(sent.size).toBe(ROUNDS * 7);

    await waitUntil('every request has its row', 20_000, async () => {
      const [found] = await store.query(
        'SELECT count() AS rows FROM requests',
        {},
        z.object({ rows: z.number() }),
      );
      return (found?.rows ?? 0) > sent.size;
    });
    const rows = await store.query(
      "SELECT requestId, finishReason, isAccountFinal FROM requests WHERE outcome != 'refused'",
      {},
      requestRow,
    );
    expect(rows).toHaveLength(sent.size);
    // On a crowded machine an answer may be whole before its cancellation comes.
    const isLate = ({ requestId, finishReason }: z.infer<typeof requestRow>) =>
      sent.get(requestId) === 'cancelled' && finishReason === 'length';
    const ended = rows.map((row) => [row.requestId, isLate(row) ? 'cancelled' : row.finishReason] as const);
    expect(new Map(ended)).toEqual(sent);
    expect(rows.some(({ finishReason }) => finishReason === 'cancelled')).toBe(true);
    expect(rows.every((row) => row.isAccountFinal)).toBe(true);
    expect(
      await store.query(
        "SELECT status, errorCode, finishReason, promptTokenCount FROM requests WHERE outcome = 'refused'",
        {},
        z.record(z.string(), z.unknown()),
      ),
    ).toEqual([{ status: 400, errorCode: 'invalid_value', finishReason: '', promptTokenCount: 0 }]);
  });

  test('what the requests were charged is what the serving steps took, to the millisecond and beyond', async () => {
    const sums = z.object({ charged: z.number(), taken: z.number() });
    const books = async () => {
      const [found] = await store.query(
        `SELECT (SELECT sum(${FOUR_ACCOUNTS}) FROM requests) AS charged,
                (SELECT sum(deviceMs) FROM steps WHERE kind = 'serve') AS taken`,
        {},
        sums,
      );
      return found ?? { charged: Number.NaN, taken: Number.NaN };
    };
    const isBalanced = ({ charged, taken }: { charged: number; taken: number }) =>
      taken > 0 && Math.abs(charged - taken) <= 1e-6 * taken;
    // The last steps' rows may still be on their way.
    await waitUntil(
      'the books balance',
      10_000,
      async () => isBalanced(await books()) || Promise.reject(new Error(JSON.stringify(await books()))),
    );
  });

  test('step ids are unique, without a gap, and each serving step is charged whole', async () => {
    const perBoot = await store.query(
      `SELECT bootId, count() AS rows, uniqExact(stepId) AS ids, min(stepId) AS first, max(stepId) AS last
       FROM steps GROUP BY bootId`,
      {},
      z.object({
        bootId: z.string(),
        rows: z.number(),
        ids: z.number(),
        first: z.number(),
        last: z.number(),
      }),
    );
    expect(perBoot).toHaveLength(1);
    for (const { rows, ids, first, last } of perBoot) {
      expect(rows).toBeGreaterThan(ROUNDS);
      expect({ first, ids, last }).toEqual({ first: 1, ids: rows, last: rows });
    }
    const kindsOfSteps = await store.query(
      `SELECT kind, count() AS rows, max(abs(${FOUR_ACCOUNTS} - if(kind = 'serve', deviceMs, 0)) / deviceMs) AS gap
       FROM steps GROUP BY kind`,
      {},
      z.object({ kind: z.string(), rows: z.number(), gap: z.number() }),
    );
    expect(kindsOfSteps.find(({ kind }) => kind === 'serve')?.rows).toBeGreaterThan(ROUNDS);
    // Steps that no client asked for are charged to none.
    for (const { kind, gap } of kindsOfSteps) expect(gap, kind).toBeLessThan(1e-9);
  });

  test('the tokens of the requests are the tokens that the steps emitted', async () => {
    const [tokens] = await store.query(
      `SELECT (SELECT sum(completionTokenCount) FROM requests) AS inRequests,
              (SELECT sum(emittedTokenCount) FROM steps WHERE kind = 'serve') AS inSteps`,
      {},
      z.object({ inRequests: z.number(), inSteps: z.number() }),
    );
    expect(tokens?.inSteps).toBeGreaterThan(0);
    expect(tokens?.inRequests).toBe(tokens?.inSteps);
  });
});

describe('the keys', () => {
  test('the endpoint answers nobody without the key, and says so', async () => {
    for (const wrong of ['sk-nobody-at-all', adminKey]) {
      const other = new OpenAI({ baseURL: `${product.inferenceUrl}/v1`, apiKey: wrong, maxRetries: 0 });
      await expect(
        other.completions.create({ model: product.modelId, prompt: 'Hello', max_tokens: 2 }),
      ).rejects.toMatchObject({ status: 401, code: 'invalid_api_key' });
    }
    const bare = await fetch(`${product.inferenceUrl}/v1/models`);
    expect(bare.status).toBe(401);
    expect(await bare.text()).not.toContain(apiKey);
    expect((await client.models.list()).data.map(({ id }) => id)).toEqual([product.modelId]);
    // A supervisor or a load balancer has no key.
    expect((await fetch(`${product.inferenceUrl}/ready`)).status).toBe(200);
  });

  test('the admin port answers the admin key alone', async () => {
    for (const wrong of [null, apiKey]) {
      const refused = adminClient(product.adminUrl, 'test', wrong).workers.list.query();
      await expect(refused).rejects.toMatchObject({ data: { httpStatus: 401 } });
    }
    expect(await product.admin.workers.list.query()).toHaveLength(1);
  });

  test('the dashboard works without being told a key, and no page or script carries one', async () => {
    const workers = await adminClient(product.webUrl, 'test', null).workers.list.query();
    expect(workers).toHaveLength(1);
    const seen = new Map<string, string>();
    const visit = async (path: string): Promise<void> => {
      if (seen.has(path)) return;
      const response = await fetch(new URL(path, product.webUrl));
      expect(response.status, path).toBe(200);
      const text = await response.text();
      seen.set(path, `${JSON.stringify([...response.headers])}\n${text}`);
      const links = [...text.matchAll(/(?:src|href)="(\/[^"]*)"/g)].map((match) => match[1] ?? '');
      for (const link of links) await visit(link.replaceAll('&amp;', '&'));
    };
    await visit('/');
    await visit('/proposals');
    expect([...seen.keys()].filter((path) => path.includes('.js')).length).toBeGreaterThan(0);
    for (const [path, text] of seen) {
      expect(text.includes(adminKey), path).toBe(false);
      expect(text.includes(apiKey), path).toBe(false);
    }
  });

  test('the dashboard forwards nothing for a foreign page or a foreign name', async () => {
    const change = (headers: Record<string, string>) =>
      fetch(`${product.webUrl}/trpc/rollouts.setKillSwitch`, {
        method: 'POST',
        headers: { 'content-type': 'application/json', ...headers },
        body: JSON.stringify({ isOn: true, reason: 'a foreign page' }),
      });
    expect((await change({ origin: 'http://foreign.example' })).status).toBe(403);
    expect((await change({})).status).toBe(403);
    expect((await product.admin.rollouts.killSwitch.query()).isOn).toBe(false);
  });

  test('neither key stands in a process list, in what is printed, or in a file that others may read', () => {
    if (canSeeProcesses) {
      const lines = livingProcesses().map(({ commandLine }) => commandLine);
      expect(lines.filter((line) => line.includes(apiKey) || line.includes(adminKey))).toEqual([]);
    }
    expect(product.output().includes(apiKey) || product.output().includes(adminKey)).toBe(false);
    for (const file of ['admin-key', 'clickhouse-url']) {
      expect(statSync(join(product.dataDir, file)).mode & 0o077, file).toBe(0);
    }
  });
});
