/**
 * The product while its parts are killed, one after the other, and at its own end: what a client sees, what comes back,
 * and which rows are kept. One product serves every test but the last two, in this order.
 */
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { createTelemetryClient } from '@variator/clickhouse/client';
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { z } from 'zod';
import { canSeeProcesses, descendantsOf, livingProcesses, type PartName, partPid } from './process-tree.ts';
import { type RunningProduct, startProduct } from './running-product.ts';
import { waitUntil } from './wait-until.ts';

if (!canSeeProcesses) console.warn('SKIPPED: faults of the whole product need /proc');

/** The slow path, on one thread: its streams last long enough to be broken. */
const flags = ['--model', 'models/stories-5m', '--path', 'reference', '--threads', '1'];

interface OpenAnswer {
  readonly requestId: string;
  /** Data of the events so far, without the [DONE]. */
  readonly events: readonly Record<string, unknown>[];
  isDone(): boolean;
  /** When the body has ended; false where the connection broke. */
  readonly ended: Promise<boolean>;
  leave(): void;
}

const until = <Answer>(
  what: string,
  ask: () => Answer | null | false | Promise<Answer | null | false>,
  limitMs = 20_000,
) => waitUntil<Answer>(what, limitMs, async () => ask());

let product: RunningProduct;
const ask = (body: object, signal?: AbortSignal) =>
  fetch(`${product.inferenceUrl}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json' },
    body: JSON.stringify({ model: product.modelId, temperature: 0, ignore_eos: true, ...body }),
    ...(signal === undefined ? {} : { signal }),
  });

/** Resolves with the first token in hand. */
async function openStream(maxTokens: number, prompt = 'Once upon a time'): Promise<OpenAnswer> {
  const leaving = new AbortController();
  const response = await ask({ prompt, max_tokens: maxTokens, stream: true }, leaving.signal);
  expect(response.status).toBe(200);
  const events: Record<string, unknown>[] = [];
  let isDone = false;
  let hasToken = (): void => {};
  const firstToken = new Promise<void>((resolve) => {
    hasToken = resolve;
  });
  const ended = (async () => {
    let rest = '';
    const decoder = new TextDecoder();
    try {
      for await (const bytes of response.body ?? []) {
        const blocks = (rest + decoder.decode(bytes, { stream: true })).split('\n\n');
        rest = blocks.pop() ?? '';
        for (const block of blocks) {
          const data = block.replace(/^data: /, '');
          if (data === '[DONE]') isDone = true;
          else events.push(JSON.parse(data));
        }
        if (events.length > 0) hasToken();
      }
      return true;
    } catch {
      // Either we left or the gateway was killed: the test knows which.
      return false;
    } finally {
      hasToken();
    }
  })();
  await firstToken;
  return {
    requestId: String(events[0]?.id),
    events,
    isDone: () => isDone,
    ended,
    leave: () => leaving.abort(),
  };
}

const completion = z.object({ choices: z.array(z.object({ text: z.string() })) });
const textOf = (answer: OpenAnswer | undefined): string =>
  (answer?.events ?? [])
    .map((event) =>
      completion
        .parse(event)
        .choices.map(({ text }) => text)
        .join(''),
    )
    .join('');

async function wholeAnswer(): Promise<string> {
  const response = await ask({ prompt: 'Lily and Tom', max_tokens: 4 });
  expect(response.status).toBe(200);
  return ((await response.json()) as { id: string }).id;
}

const readyStatus = async (): Promise<number> => {
  try {
    return (await fetch(`${product.inferenceUrl}/ready`)).status;
  } catch {
    return 0;
  }
};
const untilReady = () => until('/ready answers 200', async () => (await readyStatus()) === 200);

/** Kills the part outright; resolves with the pid of the process that takes its place. */
async function killPart(part: PartName): Promise<{ untilBack: Promise<number> }> {
  const pid = await until(`there is a ${part}`, () => partPid(product.pid, part));
  process.kill(pid, 'SIGKILL');
  const untilBack = until(`another ${part} takes over`, () => {
    const next = partPid(product.pid, part);
    return next !== null && next !== pid && next;
  });
  return { untilBack };
}

const requestRows = z.object({
  requestId: z.string(),
  finishReason: z.string(),
  isAccountFinal: z.boolean(),
  completionTokenCount: z.number(),
});
type StoredRequest = z.infer<typeof requestRows>;

/** Rows of these requests, in the order asked for; null while one is missing. @throws where one is stored twice */
async function storedRequests(requestIds: readonly string[]): Promise<StoredRequest[] | null> {
  const client = createTelemetryClient(readFileSync(join(product.dataDir, 'clickhouse-url'), 'utf8'));
  try {
    const rows = await client.query(
      `SELECT requestId, finishReason, isAccountFinal, completionTokenCount FROM requests
       WHERE requestId IN {requestIds:Array(String)}`,
      { requestIds },
      requestRows,
    );
    const byId = new Map(rows.map((row) => [row.requestId, row]));
    expect(byId.size, 'a row is stored once').toBe(rows.length);
    const found = requestIds.flatMap((requestId) => byId.get(requestId) ?? []);
    return found.length === requestIds.length ? found : null;
  } catch (error) {
    if ((error as Error).name === 'QueryError') return null;
    throw error;
  } finally {
    await client.close();
  }
}

const untilStored = (requestIds: readonly string[]) =>
  until(`rows of ${requestIds.length} requests are in ClickHouse`, () => storedRequests(requestIds));

describe.skipIf(!canSeeProcesses)('a product whose parts are killed', () => {
  beforeAll(async () => {
    product = await startProduct({ flags });
  }, 120_000);
  afterAll(async () => {
    await product?.stop();
    product?.removeData();
  });

  test('a client who leaves frees the sequence, and a row says that it was cancelled', async () => {
    const stream = await openStream(2000);
    stream.leave();
    await stream.ended;
    await until('no sequence runs', async () => {
      const [worker] = await product.admin.workers.list.query();
      return worker?.runningCount === 0 && worker.waitingCount === 0 && worker.kvUsedBlockCount === 0;
    });
    const [row] = await untilStored([stream.requestId]);
    expect(row).toMatchObject({ finishReason: 'cancelled', isAccountFinal: true });
    expect(row?.completionTokenCount).toBeLessThan(2000);
  });

  test('a killed worker is not seen in its streams: they go on with its successor, as new requests do', async () => {
    const prompts = ['Once upon a time', 'The dog was'];
    const undisturbed = await Promise.all(prompts.map((prompt) => openStream(600, prompt)));
    await Promise.all(undisturbed.map((stream) => stream.ended));
    const streams = await Promise.all(prompts.map((prompt) => openStream(600, prompt)));
    const { untilBack } = await killPart('worker');
    const unready = await until('/ready says no', async () => (await readyStatus()) === 503);
    expect(unready).toBe(true);
    const meanwhile = await wholeAnswer();
    for (const [at, stream] of streams.entries()) {
      expect(await stream.ended).toBe(true);
      expect(stream.isDone()).toBe(true);
      expect(textOf(stream)).toBe(textOf(undisturbed[at]));
    }
    await untilBack;
    await untilReady();
    const rows = await untilStored([...streams.map((stream) => stream.requestId), meanwhile]);
    expect(rows.map((row) => [row.finishReason, row.isAccountFinal, row.completionTokenCount])).toEqual([
      ['length', false, 600],
      ['length', false, 600],
      ['length', true, 4],
    ]);
  });

  test('requests go on without ClickHouse, and their rows arrive once when it is back', async () => {
    const before = [await wholeAnswer(), await wholeAnswer()];
    const stream = await openStream(300);
    const { untilBack } = await killPart('clickhouse');
    const meanwhile: string[] = [];
    for (let count = 0; count < 8; count += 1) meanwhile.push(await wholeAnswer());
    expect(await readyStatus()).toBe(200);
    expect(await stream.ended).toBe(true);
    expect(stream.isDone()).toBe(true);
    await untilBack;
    const rows = await untilStored([...before, stream.requestId, ...meanwhile, await wholeAnswer()]);
    expect(rows.every((row) => row.finishReason === 'length' && row.isAccountFinal)).toBe(true);
  });

  test('nothing else notices that optimizer and dashboard are killed, and both come back', async () => {
    const others = (['gateway', 'worker', 'clickhouse'] as const).map((part) => partPid(product.pid, part));
    const stream = await openStream(300);
    const optimizer = await killPart('optimizer');
    const dashboard = await killPart('dashboard');
    expect(await readyStatus()).toBe(200);
    expect(await stream.ended).toBe(true);
    expect(stream.events.some((event) => 'error' in event)).toBe(false);
    expect(stream.isDone()).toBe(true);
    await Promise.all([optimizer.untilBack, dashboard.untilBack]);
    await until('the dashboard answers', async () => {
      const page = await fetch(product.webUrl).catch(() => null);
      return page?.status === 200;
    });
    expect((['gateway', 'worker', 'clickhouse'] as const).map((part) => partPid(product.pid, part))).toEqual(
      others,
    );
  });

  test('a killed gateway comes back, and the same worker joins it again', async () => {
    const worker = partPid(product.pid, 'worker');
    const [before] = await product.admin.workers.list.query();
    const stream = await openStream(2000);
    const { untilBack } = await killPart('gateway');
    expect(await stream.ended).toBe(false);
    await untilBack;
    await untilReady();
    const [after] = await product.admin.workers.list.query();
    expect(after?.pid).toBe(worker);
    expect(after?.pathId).toBe(before?.pathId);
    // Nobody waits any more for what the lost gateway had asked for.
    await until('no sequence runs', async () => {
      const [now] = await product.admin.workers.list.query();
      return now?.runningCount === 0 && now.kvUsedBlockCount === 0;
    });
    await untilStored([await wholeAnswer()]);
  });

  test('one Ctrl-C lets an open stream end, leaves no process, and keeps the last rows', async () => {
    const stream = await openStream(600);
    const children = descendantsOf(product.pid).map(({ pid }) => pid);
    expect(children.length).toBeGreaterThanOrEqual(5);
    const stopping = product.stop();
    expect(await stream.ended).toBe(true);
    expect(stream.isDone()).toBe(true);
    expect(stream.events.some((event) => 'error' in event)).toBe(false);
    expect(stream.events.filter((event) => 'choices' in event).length).toBeGreaterThan(500);
    expect(await stopping).toBe(0);
    expect(product.processes()).toEqual([]);
    expect(livingProcesses().filter(({ pid }) => children.includes(pid))).toEqual([]);

    product = await startProduct({ flags, dataDir: product.dataDir });
    const [row] = await untilStored([stream.requestId]);
    expect(row).toMatchObject({ finishReason: 'length', isAccountFinal: true, completionTokenCount: 600 });
  }, 120_000);

  test('no child outlives a supervisor that is killed with a stream open', async () => {
    const children = descendantsOf(product.pid).map(({ pid }) => pid);
    const stream = await openStream(2000);
    process.kill(product.pid, 'SIGKILL');
    await until(
      'every child is gone',
      () => livingProcesses().every(({ pid }) => !children.includes(pid)),
      8000,
    );
    await stream.ended;
    expect(product.processes()).toEqual([]);
  });
});
