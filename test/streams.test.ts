/**
 * The real product under clients that leave at every moment, tenants with equal prompts, and SIGTERM with streams open.
 * One product serves all tests, in this order. `npm run bench -- serve streams` is the same with 200 streams.
 */
import { afterAll, beforeAll, describe, expect, test } from 'vitest';
import { askAndLeave, type Leaving } from './leaving-clients.ts';
import { canSeeProcesses, partPid } from './process-tree.ts';
import { type RunningProduct, startProduct } from './running-product.ts';
import { waitUntil } from './wait-until.ts';

const keys = { ann: 'sesame-of-ann', bob: 'sesame-of-bob' };
let product: RunningProduct;

beforeAll(async () => {
  product = await startProduct({
    flags: ['--model', 'models/stories-5m', '--path', 'reference', '--threads', '1'],
    env: { VARIATOR_API_KEY: `ann:${keys.ann},bob:${keys.bob}` },
  });
}, 120_000);
afterAll(async () => {
  await product?.stop();
  product?.removeData();
});

const bodyOf = (prompt: string, maxTokens: number) => ({
  model: product.modelId,
  prompt,
  max_tokens: maxTokens,
  temperature: 0,
  ignore_eos: true,
  stream: true,
});
const ask = (key: string, body: object) =>
  fetch(`${product.inferenceUrl}/v1/completions`, {
    method: 'POST',
    headers: { 'content-type': 'application/json', authorization: `Bearer ${key}` },
    body: JSON.stringify(body),
  });
const idle = () =>
  waitUntil('nothing runs or waits, and no KV block is held', 30_000, async () => {
    const [worker] = await product.admin.workers.list.query();
    return worker?.runningCount === 0 && worker.waitingCount === 0 && worker.kvUsedBlockCount === 0;
  });

const storms: readonly [string, (index: number) => Leaving][] = [
  ['in their headers and bodies', (index) => ({ at: index % 2 === 0 ? 'headers' : 'body' })],
  ['while their prompts are tokenised', () => ({ at: 'sent' })],
  ['while their prompts are computed', (index) => ({ at: 'wait', ms: 4 * index })],
  ['with the first token', () => ({ at: 'token', count: 1 })],
  ['after some tokens', (index) => ({ at: 'token', count: 1 + ((index * 7) % 40) })],
];

describe.each(storms)('clients who leave %s', (_name, leavingOf) => {
  test('leave nothing behind, while another reads to its end', async () => {
    const workerPid = canSeeProcesses ? partPid(product.pid, 'worker') : null;
    const url = product.inferenceUrl;
    const stays = askAndLeave({
      ...{ url, session: 'stays', apiKey: keys.bob, leaving: { at: 'end' } },
      body: bodyOf('The dog was', 80),
    });
    const long = 'Once upon a time there was a little girl who saw a cat. '.repeat(12);
    await Promise.all(
      Array.from({ length: 40 }, (_, index) =>
        askAndLeave({
          ...{ url, session: `leaves-${index}`, apiKey: keys.ann, leaving: leavingOf(index) },
          body: bodyOf(`${index} ${long}`, 400),
        }),
      ),
    );
    const { status, isDone, eventCount } = await stays;
    expect({ status, isDone }).toEqual({ status: 200, isDone: true });
    expect(eventCount).toBeGreaterThan(60);
    await idle();
    // An idle worker whose books do not add up ends itself.
    if (canSeeProcesses) expect(partPid(product.pid, 'worker')).toBe(workerPid);
  });
});

test('equal prompts of two tenants share nothing; those of one tenant do', async () => {
  const prompt = 'A red ball and a tall tree and a boat were in the garden, and the moon was big. '.repeat(3);
  const cachedFor = async (key: string): Promise<number> => {
    const response = await ask(key, { ...bodyOf(prompt, 2), stream: false });
    const { usage } = (await response.json()) as {
      usage: { prompt_tokens_details: { cached_tokens: number } };
    };
    return usage.prompt_tokens_details.cached_tokens;
  };
  expect(await cachedFor(keys.ann)).toBe(0);
  expect(await cachedFor(keys.ann)).toBeGreaterThan(16);
  expect(await cachedFor(keys.bob)).toBe(0);
  expect(await cachedFor(keys.bob)).toBeGreaterThan(16);
});

test('a deadline ends a stream that would take longer, and frees its blocks', async () => {
  const response = await fetch(`${product.inferenceUrl}/v1/completions`, {
    method: 'POST',
    headers: {
      'content-type': 'application/json',
      authorization: `Bearer ${keys.ann}`,
      'x-deadline-ms': '400',
    },
    body: JSON.stringify(bodyOf('The old man', 2000)),
  });
  const text = await response.text();
  expect(text).toContain('deadline_exceeded');
  await idle();
});

test('SIGTERM lets open streams end, refuses new requests with 503 and retry-after, and ends with 0', async () => {
  const url = product.inferenceUrl;
  // Each asks again as soon as it has its answer, so that some are open whenever the signal comes; of unequal lengths, so
  // that they do not all end in the same step.
  const loops = Array.from({ length: 8 }, async (_, index) => {
    const answers = [];
    do {
      const body = bodyOf(`${index} was the last`, 120 + 17 * index);
      const session = `last-${index}`;
      answers.push(await askAndLeave({ url, session, apiKey: keys.ann, leaving: { at: 'end' }, body }));
    } while (answers.at(-1)?.status === 200);
    return answers;
  });
  await waitUntil('the streams run', 20_000, async () => {
    const [worker] = await product.admin.workers.list.query();
    return (worker?.runningCount ?? 0) >= 4;
  });
  const stopping = product.stop('SIGTERM');
  const answers = (await Promise.all(loops)).flat();
  const refused = answers.filter(({ status }) => status === 503);
  expect(refused.length).toBeGreaterThan(0);
  for (const { text } of refused) expect(text).toMatch(/^retry-after: [1-9]/im);
  for (const { status, isDone, text } of answers) {
    if (status !== 200) continue;
    expect(isDone).toBe(true);
    expect(text).not.toContain('"error"');
  }
  expect(await stopping).toBe(0);
});
