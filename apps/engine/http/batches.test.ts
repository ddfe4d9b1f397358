/** Files and batches through OpenAI's own client on a real socket; the fleet echoes. */
import { createReadStream, mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import OpenAI from 'openai';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { MODEL } from './served.fixture.ts';
import {
  chatLine,
  completionLine,
  ended,
  linesOf,
  reaches,
  type ServedBatches,
  serveBatches,
  submitted,
  uploaded,
} from './served-batches.fixture.ts';

let served: ServedBatches;
let client: OpenAI;
let folder: string;

beforeAll(async () => {
  folder = mkdtempSync(join(tmpdir(), 'variator-upload-'));
  served = await serveBatches({
    scriptFor: (spec) => ({ tokenIds: [5, 6, 7, 2], ...(spec.program === 'slow' ? { gapMs: 20 } : {}) }),
  });
  client = served.client;
});
afterAll(async () => {
  await served.close();
  rmSync(folder, { recursive: true, force: true });
});

const slow = { user: 'slow', max_tokens: 1000, ignore_eos: true };

describe('a batch', () => {
  test('from a streamed file to its output: in order, one result a line, with usage and progress', async () => {
    const path = join(folder, 'story.jsonl');
    const ids = Array.from({ length: 120 }, (_, index) => `line ${index}`);
    writeFileSync(path, ids.map((id) => chatLine(id, { max_tokens: 3 })).join('\n'));
    const file = await client.files.create({ file: createReadStream(path), purpose: 'batch' });
    expect(file).toMatchObject({
      object: 'file',
      purpose: 'batch',
      filename: 'story.jsonl',
      status: 'processed',
    });
    const batch = await client.batches.create({
      input_file_id: file.id,
      endpoint: '/v1/chat/completions',
      completion_window: '24h',
      metadata: { who: 'test' },
    });
    expect(batch).toMatchObject({
      object: 'batch',
      status: 'validating',
      metadata: { who: 'test' },
      errors: null,
    });
    expect(Number(batch.expires_at) - batch.created_at).toBe(24 * 3600);

    const done = await ended(client, batch.id);
    expect(done).toMatchObject({
      status: 'completed',
      model: MODEL,
      request_counts: { total: 120, completed: 120, failed: 0 },
      error_file_id: null,
    });
    const lines = await linesOf(client, done.output_file_id);
    expect(lines.map((line) => line.custom_id)).toEqual(ids);
    expect(new Set(lines.map((line) => line.id)).size).toBe(120);
    const online = await client.chat.completions.create({
      model: MODEL,
      messages: [{ role: 'user', content: 'line 7' }],
      max_tokens: 3,
    });
    expect(lines[7]?.response).toMatchObject({
      status_code: 200,
      body: { object: 'chat.completion', choices: online.choices, usage: online.usage },
    });
    const total = lines.reduce((sum, line) => sum + (line.response?.body.usage.total_tokens ?? 0), 0);
    expect(done.usage?.total_tokens).toBe(total);
    const output = await client.files.retrieve(done.output_file_id ?? '');
    expect(output).toMatchObject({ purpose: 'batch_output', filename: `${batch.id}_output.jsonl` });
  });

  test('its lines run in the flex tier, each with a row of its own', async () => {
    const rowCount = served.rows.length;
    const batch = await submitted(client, [completionLine('a'), completionLine('b', { prompt: ['x', 'y'] })]);
    await ended(client, batch.id);
    await served.rowsReach(rowCount + 3);
    expect(served.fleet.submitted.slice(-3).map((spec) => spec.serviceTier)).toEqual([
      'flex',
      'flex',
      'flex',
    ]);
    expect(served.rows.slice(rowCount).every((row) => row.status === 200 && !row.isStreamed)).toBe(true);
  });

  test('a line that is refused gets the error it would get online, in the error file; the others go on', async () => {
    const bodies: object[] = [
      { max_tokens: -1 },
      { prompt: '' },
      { temperature: 9 },
      { made_up: 1 },
      { prompt: 'x '.repeat(5000) },
      { prompt: [999_999] },
      { prompt: null },
    ];
    const lines = bodies.flatMap((body, index) => [
      completionLine(`good ${index}`),
      completionLine(`bad ${index}`, body),
    ]);
    const batch = await ended(client, (await submitted(client, lines)).id);
    expect(batch).toMatchObject({
      status: 'completed',
      request_counts: { total: 14, completed: 7, failed: 7 },
    });
    const [good, bad] = await Promise.all([
      linesOf(client, batch.output_file_id),
      linesOf(client, batch.error_file_id),
    ]);
    expect(good.map((line) => line.custom_id)).toEqual(bodies.map((_, index) => `good ${index}`));
    expect(bad.map((line) => line.custom_id)).toEqual(bodies.map((_, index) => `bad ${index}`));
    for (const [index, line] of bad.entries()) {
      const online = await served.post('/v1/completions', {
        model: MODEL,
        prompt: `bad ${index}`,
        ...bodies[index],
      });
      expect(line.response?.status_code).toBe(online.status);
      expect(line.response?.body).toEqual(await online.json());
    }
  });

  test('a line that wants a stream is told why not', async () => {
    const batch = await ended(client, (await submitted(client, [completionLine('a', { stream: true })])).id);
    expect(batch).toMatchObject({ status: 'completed', output_file_id: null });
    const [line] = await linesOf(client, batch.error_file_id);
    expect(line?.response?.body.error).toMatchObject({ code: 'unsupported_parameter', param: 'stream' });
  });

  test('an input that cannot be run fails with every fault and its line', async () => {
    const input = [
      '{',
      completionLine('a'),
      chatLine('b'),
      completionLine('a'),
      completionLine('c', { model: 'x' }),
    ];
    const batch = await ended(client, (await submitted(client, input)).id);
    expect(batch.status).toBe('failed');
    expect(batch.errors?.data?.map(({ code, line }) => [code, line])).toEqual([
      ['invalid_json_line', 1],
      ['invalid_url', 3],
      ['duplicate_custom_id', 4],
      ['model_not_found', 5],
    ]);
    expect(batch).toMatchObject({ output_file_id: null, request_counts: { total: 0 } });
  });

  test('cancelled half-way keeps what is done, says what is not, and frees the fleet', async () => {
    const quick = Array.from({ length: 4 }, (_, index) => completionLine(`quick ${index}`));
    const long = Array.from({ length: 40 }, (_, index) => completionLine(`slow ${index}`, slow));
    const { id } = await submitted(client, [...quick, ...long]);
    for (let counts = 0; counts < 4; ) {
      counts = (await client.batches.retrieve(id)).request_counts?.completed ?? 0;
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const cancelling = await client.batches.cancel(id);
    expect(['cancelling', 'cancelled']).toContain(cancelling.status);
    const batch = await reaches(client, id, 'cancelled');
    expect(batch.request_counts).toEqual({ total: 44, completed: 4, failed: 0 });
    expect((await linesOf(client, batch.output_file_id)).map((line) => line.custom_id)).toEqual(
      quick.map((_, index) => `quick ${index}`),
    );
    const unrun = await linesOf(client, batch.error_file_id);
    expect(unrun.map((line) => line.custom_id)).toEqual(long.map((_, index) => `slow ${index}`));
    expect(unrun.every((line) => line.response === null && line.error?.code === 'batch_cancelled')).toBe(
      true,
    );
    expect(served.fleet.activeCount()).toBe(0);
    await expect(client.batches.cancel(id)).rejects.toMatchObject({
      status: 409,
      code: 'batch_not_cancellable',
    });
  });

  test('several at once take turns, and each has all of its lines', async () => {
    const batches = await Promise.all(
      Array.from({ length: 12 }, async (_, batch) => {
        const ids = Array.from({ length: 25 }, (_, line) => `${batch}/${line}`);
        return {
          ids,
          id: (
            await submitted(
              client,
              ids.map((id) => completionLine(id)),
            )
          ).id,
        };
      }),
    );
    for (const { ids, id } of batches) {
      const batch = await ended(client, id);
      expect((await linesOf(client, batch.output_file_id)).map((line) => line.custom_id)).toEqual(ids);
    }
  });
});

describe('files and lists', () => {
  test('are walked page by page in both orders', async () => {
    const own = await serveBatches();
    try {
      const ids: string[] = [];
      for (let count = 0; count < 7; count += 1) ids.push(await uploaded(own.client, [completionLine('a')]));
      const walk = async (query: OpenAI.FileListParams) => {
        const found: string[] = [];
        for await (const file of own.client.files.list(query)) found.push(file.id);
        return found;
      };
      expect(await walk({ limit: 3 })).toEqual([...ids].reverse());
      expect(await walk({ limit: 2, order: 'asc' })).toEqual(ids);
      expect(await walk({ purpose: 'batch', after: ids[5] ?? '' })).toEqual(ids.slice(0, 5).reverse());
      expect(await walk({ purpose: 'batch_output' })).toEqual([]);
      const batches: string[] = [];
      for (const input_file_id of ids.slice(0, 5)) {
        const made = await own.client.batches.create({
          input_file_id,
          endpoint: '/v1/completions',
          completion_window: '24h',
        });
        batches.push(made.id);
      }
      const listed: string[] = [];
      for await (const batch of own.client.batches.list({ limit: 2 })) listed.push(batch.id);
      expect(listed).toEqual(batches.reverse());
    } finally {
      await own.close();
    }
  });

  test('a file is read back byte for byte, deleted, and gone', async () => {
    const content = '\ufeff{"a":"大型 👩‍👩‍👧‍👦"}\r\n\r\nnot json\n';
    const id = await uploaded(client, content);
    const response = await client.files.content(id);
    expect(Buffer.from(await response.arrayBuffer()).equals(Buffer.from(content))).toBe(true);
    expect(await client.files.delete(id)).toEqual({ id, object: 'file', deleted: true });
    await expect(client.files.retrieve(id)).rejects.toThrow(OpenAI.NotFoundError);
    await expect(client.files.content(id)).rejects.toThrow(OpenAI.NotFoundError);
    await expect(client.files.delete(id)).rejects.toThrow(OpenAI.NotFoundError);
  });

  test('the input of a batch that runs cannot be deleted', async () => {
    const { id, input_file_id } = await submitted(client, [completionLine('a', slow)]);
    await expect(client.files.delete(input_file_id)).rejects.toMatchObject({
      status: 409,
      code: 'file_in_use',
    });
    await client.batches.cancel(id);
    await ended(client, id);
    expect((await client.files.delete(input_file_id)).deleted).toBe(true);
  });

  test.each<[string, object, string]>([
    ['no input', { endpoint: '/v1/completions', completion_window: '24h' }, 'input_file_id'],
    [
      'an unknown input',
      { input_file_id: 'file-x', endpoint: '/v1/completions', completion_window: '24h' },
      'input_file_id',
    ],
    [
      'another endpoint',
      { input_file_id: 'x', endpoint: '/v1/embeddings', completion_window: '24h' },
      'endpoint',
    ],
    [
      'another window',
      { input_file_id: 'x', endpoint: '/v1/completions', completion_window: '1h' },
      'completion_window',
    ],
    [
      'a long metadata value',
      {
        input_file_id: 'x',
        endpoint: '/v1/completions',
        completion_window: '24h',
        metadata: { a: 'x'.repeat(513) },
      },
      'metadata.a',
    ],
    [
      'an expiry of a minute',
      {
        input_file_id: 'x',
        endpoint: '/v1/completions',
        completion_window: '24h',
        output_expires_after: { anchor: 'created_at', seconds: 60 },
      },
      'output_expires_after.seconds',
    ],
    [
      'an unknown key',
      { input_file_id: 'x', endpoint: '/v1/completions', completion_window: '24h', priority: 1 },
      'priority',
    ],
  ])('a batch with %s is refused by name', async (_name, body, param) => {
    const response = await served.post('/v1/batches', body);
    expect(response.status).toBe(400);
    expect(await response.json()).toMatchObject({ error: { type: 'invalid_request_error', param } });
  });

  test.each([
    '/v1/files?limit=0',
    '/v1/files?limit=x',
    '/v1/files?order=up',
    '/v1/files?purpose=vision',
    '/v1/files?limit=1&limit=2',
    '/v1/batches?limit=101',
    '/v1/batches?made_up=1',
  ])('%s is refused', async (url) => {
    expect((await fetch(`${served.url}${url}`)).status).toBe(400);
  });

  test.each(['..%2F..%2Fetc%2Fpasswd', '%00', 'file-%20', 'x'.repeat(300), '__proto__'])(
    'no id leads out of the folder: %s',
    async (id) => {
      for (const url of [`/v1/files/${id}`, `/v1/files/${id}/content`, `/v1/batches/${id}`]) {
        const response = await fetch(`${served.url}${url}`);
        expect([400, 404, 414]).toContain(response.status);
        expect(await response.json()).toHaveProperty('error.message');
      }
    },
  );
});

describe('tenants', () => {
  test('a key sees only its own files and batches, and a line runs as its own', async () => {
    const own = await serveBatches({
      server: { apiKeys: ['anna', 'ben'].map((name) => ({ name, key: `key-of-${name}` })) },
    });
    const as = (name: string) =>
      new OpenAI({ baseURL: `${own.url}/v1`, apiKey: `key-of-${name}`, maxRetries: 0 });
    const [anna, ben] = [as('anna'), as('ben')];
    try {
      const { id, input_file_id } = await submitted(anna, [
        completionLine('a', { service_tier: 'priority' }),
      ]);
      const done = await ended(anna, id);
      expect(done.status).toBe('completed');
      expect(own.fleet.submitted.at(-1)).toMatchObject({ tenant: 'anna', serviceTier: 'flex' });
      expect(own.rows.at(-1)).toMatchObject({ tenant: 'anna' });
      for (const fileId of [input_file_id, done.output_file_id ?? '']) {
        await expect(ben.files.retrieve(fileId)).rejects.toThrow(OpenAI.NotFoundError);
        await expect(ben.files.content(fileId)).rejects.toThrow(OpenAI.NotFoundError);
        await expect(ben.files.delete(fileId)).rejects.toThrow(OpenAI.NotFoundError);
      }
      await expect(ben.batches.retrieve(id)).rejects.toThrow(OpenAI.NotFoundError);
      await expect(ben.batches.cancel(id)).rejects.toThrow(OpenAI.NotFoundError);
      const asked = { input_file_id, endpoint: '/v1/completions', completion_window: '24h' } as const;
      await expect(ben.batches.create(asked)).rejects.toMatchObject({ status: 400, param: 'input_file_id' });
      expect((await ben.files.list()).data).toEqual([]);
      expect((await ben.files.list({ after: input_file_id })).data).toEqual([]);
      expect((await ben.batches.list()).data).toEqual([]);
      expect((await anna.files.list()).data).toHaveLength(2);
      await expect(own.client.files.list()).rejects.toThrow(OpenAI.AuthenticationError);
      await expect(uploaded(own.client, 'x')).rejects.toThrow(OpenAI.AuthenticationError);
    } finally {
      await own.close();
    }
  });
});

describe('time', () => {
  test('a batch whose window has passed ends with what is done and says what is not', async () => {
    const own = await serveBatches({
      scriptFor: (spec) => ({ tokenIds: [5, 2], ...(spec.program === 'slow' ? { gapMs: 20 } : {}) }),
    });
    try {
      const lines = [
        completionLine('quick'),
        ...Array.from({ length: 20 }, (_, index) => completionLine(`${index}`, slow)),
      ];
      const { id } = await submitted(own.client, lines);
      for (let counts = 0; counts < 1; ) {
        counts = (await own.client.batches.retrieve(id)).request_counts?.completed ?? 0;
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      own.passMs(24 * 3600_000);
      const batch = await reaches(own.client, id, 'expired');
      expect(batch.request_counts).toEqual({ total: 21, completed: 1, failed: 0 });
      expect(await linesOf(own.client, batch.output_file_id)).toHaveLength(1);
      const unrun = await linesOf(own.client, batch.error_file_id);
      expect(unrun).toHaveLength(20);
      expect(unrun.every((line) => line.error?.code === 'batch_expired')).toBe(true);
      expect(own.fleet.activeCount()).toBe(0);
    } finally {
      await own.close();
    }
  });

  test('files go when their time is over, and give their room back', async () => {
    const own = await serveBatches({ limits: { maxStoredBytes: 100_000 } });
    try {
      const big = `${completionLine('a')}\n${'\n'.repeat(60_000)}`;
      const form = new FormData();
      form.set('file', new File([big], 'in.jsonl'));
      form.set('purpose', 'batch');
      form.set('expires_after[anchor]', 'created_at');
      form.set('expires_after[seconds]', '3600');
      const response = await fetch(`${own.url}/v1/files`, { method: 'POST', body: form });
      const { id, created_at, expires_at } = (await response.json()) as OpenAI.FileObject;
      expect(Number(expires_at) - created_at).toBe(3600);
      const batch = await own.client.batches.create({
        input_file_id: id,
        endpoint: '/v1/completions',
        completion_window: '24h',
        output_expires_after: { anchor: 'created_at', seconds: 3600 },
      });
      const done = await ended(own.client, batch.id);
      await expect(uploaded(own.client, big)).rejects.toMatchObject({
        status: 400,
        code: 'storage_limit_exceeded',
      });
      own.passMs(3601_000);
      await expect(own.client.files.retrieve(id)).rejects.toThrow(OpenAI.NotFoundError);
      await expect(own.client.files.content(done.output_file_id ?? '')).rejects.toThrow(OpenAI.NotFoundError);
      expect((await own.client.files.list()).data).toEqual([]);
      for (let isTaken = false; !isTaken; ) {
        isTaken = await uploaded(own.client, big).then(
          () => true,
          () => false,
        );
        own.passMs(30_000);
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      expect((await own.client.batches.retrieve(batch.id)).status).toBe('completed');
    } finally {
      await own.close();
    }
  });
});
