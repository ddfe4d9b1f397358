/**
 * A batch file of 500 lines beside interactive traffic at half of what the machine can do, in alternating windows: what the
 * batch costs the people who read along, and what it adds to the tokens of the whole.
 */
import { setTimeout as pause } from 'node:timers/promises';
import OpenAI from 'openai';
import { type ClientRecord, drivePhase, type Endpoint } from '../../../apps/engine/cli/drive.ts';
import { generator, type Phase, words } from '../../../apps/engine/cli/workload.ts';
import { type RunningProduct, startProduct } from '../../running-product.ts';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, pairedRatio, spread } from '../figure.ts';

/** Odd, so that a median is one of them. */
const PAIRS = 5;
const WINDOW_MS = 10_000;
const LINE_COUNT = 500;
const LINE_TOKENS = 48;
const PROMPT_WORDS = 30;
const ANSWER_TOKENS = 40;
const CROWD = 16;

interface Window {
  readonly gapsMs: readonly number[];
  readonly itlP99Ms: number;
  readonly itlP50Ms: number;
  readonly ttftP99Ms: number;
  readonly requestTokensPerSecond: number;
  readonly batchTokensPerSecond: number;
  readonly tokensPerSecond: number;
}

export async function batchBeside(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const product = await startProduct({ flags: ['--model', path] });
  try {
    const random = generator(11);
    const crowd = await crowdTokensPerSecond(product, random);
    const ratePerSecond = crowd / 2 / ANSWER_TOKENS;
    const alone: Window[] = [];
    const beside: Window[] = [];
    for (let pair = 0; pair < PAIRS; pair += 1) {
      alone.push(await measure(product, ratePerSecond, random, null));
      const batchId = await submitBatch(product, random);
      beside.push(await measure(product, ratePerSecond, random, batchId));
    }
    type Measure = Exclude<keyof Window, 'gapsMs'>;
    const of = (windows: readonly Window[], key: Measure): number[] => windows.map((each) => each[key]);
    const both = (name: string, key: Measure, unit: string, digits: number): Figure[] => [
      figure(`${label}, ${name}, alone`, spread(of(alone, key)), unit, '', null, digits),
      figure(`${label}, ${name}, beside a batch`, spread(of(beside, key)), unit, '', null, digits),
    ];
    const ratio = (
      name: string,
      key: Measure,
      goal = '',
      isGood: ((median: number) => boolean) | null = null,
    ): Figure =>
      figure(
        `${label}, ${name}, with the batch / without`,
        pairedRatio(of(beside, key), of(alone, key)),
        '',
        goal,
        isGood,
      );
    const pooledP99Ms = (windows: readonly Window[]): number =>
      quantile(
        windows.flatMap(({ gapsMs }) => gapsMs),
        0.99,
      );
    return [
      figure(
        `${label}, ${CROWD} at once, the whole of which half is asked for`,
        spread([crowd]),
        'tok/s',
        '',
        null,
        0,
      ),
      ...both('interactive ITL p99', 'itlP99Ms', 'ms', 1),
      ...both('interactive ITL p50', 'itlP50Ms', 'ms', 1),
      ...both('interactive TTFT p99', 'ttftP99Ms', 'ms', 0),
      ...both('tokens of requests', 'requestTokensPerSecond', 'tok/s', 0),
      figure(
        `${label}, tokens of the batch`,
        spread(of(beside, 'batchTokensPerSecond')),
        'tok/s',
        '',
        null,
        0,
      ),
      ...both('tokens in all', 'tokensPerSecond', 'tok/s', 0),
      ratio('interactive ITL p99', 'itlP99Ms', '<= 1.2', (median) => median <= 1.2),
      {
        figure: `${label}, interactive ITL p99 of all windows together, with the batch / without`,
        goal: '',
        measured: (pooledP99Ms(beside) / pooledP99Ms(alone)).toFixed(2),
        interval: `${pooledP99Ms(beside).toFixed(1)} ms / ${pooledP99Ms(alone).toFixed(1)} ms`,
        isMet: null,
      },
      ratio('interactive ITL p50', 'itlP50Ms'),
      ratio('tokens in all', 'tokensPerSecond', '>= 1.3', (median) => median >= 1.3),
    ];
  } finally {
    await product.stop();
    product.removeData();
  }
}

const endpointOf = (product: RunningProduct): Endpoint => ({
  url: product.inferenceUrl,
  modelId: product.modelId,
  apiKey: null,
});
const clientOf = (product: RunningProduct): OpenAI =>
  new OpenAI({ baseURL: `${product.inferenceUrl}/v1`, apiKey: 'any', maxRetries: 0 });

/** Output tokens a second with CROWD requests at once, without pause. */
async function crowdTokensPerSecond(product: RunningProduct, random: () => number): Promise<number> {
  const requests = Array.from({ length: 2000 }, (_, index) => request(null, index, random));
  const phase: Phase = { name: 'flood', durationMs: 6000, concurrency: CROWD, requests };
  const { records, seconds } = await drive(product, phase);
  return records.reduce((sum, record) => sum + record.completionTokenCount, 0) / seconds;
}

/** One window of Poisson arrivals; a batch beside it is cancelled at its end, and what is done by then counts. */
async function measure(
  product: RunningProduct,
  ratePerSecond: number,
  random: () => number,
  batchId: string | null,
): Promise<Window> {
  const requests: ReturnType<typeof request>[] = [];
  for (let atMs = 0; atMs < WINDOW_MS; atMs += (-Math.log(1 - random()) * 1000) / ratePerSecond) {
    requests.push(request(atMs, requests.length, random));
  }
  const before = batchId === null ? 0 : await batchTokens(product, batchId);
  const phase: Phase = { name: 'chats', durationMs: WINDOW_MS, concurrency: 0, requests };
  const { records, seconds } = await drive(product, phase);
  const batchTokenCount = batchId === null ? 0 : (await batchTokens(product, batchId)) - before;
  if (batchId !== null) await endBatch(product, batchId);
  const gaps = records.flatMap(({ gapsMs }) => gapsMs);
  const requestTokenCount = records.reduce((sum, record) => sum + record.completionTokenCount, 0);
  return {
    gapsMs: gaps,
    itlP99Ms: quantile(gaps, 0.99),
    itlP50Ms: quantile(gaps, 0.5),
    ttftP99Ms: quantile(
      records.flatMap(({ ttftMs }) => ttftMs ?? []),
      0.99,
    ),
    requestTokensPerSecond: requestTokenCount / seconds,
    batchTokensPerSecond: batchTokenCount / seconds,
    tokensPerSecond: (requestTokenCount + batchTokenCount) / seconds,
  };
}

const request = (atMs: number | null, index: number, random: () => number) => ({
  atMs,
  prompt: words(PROMPT_WORDS, random),
  maxTokens: ANSWER_TOKENS,
  isStreamed: true,
  session: `beside-${index}`,
});

async function drive(
  product: RunningProduct,
  phase: Phase,
): Promise<{ records: ClientRecord[]; seconds: number }> {
  const records: ClientRecord[] = [];
  const startedAt = performance.now();
  await drivePhase(
    endpointOf(product),
    phase,
    (record) => records.push(record),
    new AbortController().signal,
  );
  const faults = records.filter(({ fault }) => fault !== '');
  if (faults.length > 0) throw new Error(`${faults.length} requests failed: ${faults[0]?.fault}`);
  return { records, seconds: (performance.now() - startedAt) / 1000 };
}

/** Resolves when its first lines are done. */
async function submitBatch(product: RunningProduct, random: () => number): Promise<string> {
  const client = clientOf(product);
  const lines = Array.from({ length: LINE_COUNT }, (_, index) =>
    JSON.stringify({
      custom_id: `${index}`,
      method: 'POST',
      url: '/v1/chat/completions',
      body: {
        model: product.modelId,
        messages: [{ role: 'user', content: words(PROMPT_WORDS, random) }],
        max_tokens: LINE_TOKENS,
        ignore_eos: true,
      },
    }),
  );
  const file = await client.files.create({
    file: new File([lines.join('\n')], 'lines.jsonl'),
    purpose: 'batch',
  });
  const { id } = await client.batches.create({
    input_file_id: file.id,
    endpoint: '/v1/chat/completions',
    completion_window: '24h',
  });
  while ((await batchTokens(product, id)) === 0) await pause(100);
  return id;
}

const batchTokens = async (product: RunningProduct, batchId: string): Promise<number> =>
  (await clientOf(product).batches.retrieve(batchId)).usage?.output_tokens ?? 0;

async function endBatch(product: RunningProduct, batchId: string): Promise<void> {
  const client = clientOf(product);
  const { status } = await client.batches.retrieve(batchId);
  if (status === 'completed') throw new Error('The batch ended before its window did; it has too few lines.');
  await client.batches.cancel(batchId);
  while ((await client.batches.retrieve(batchId)).status !== 'cancelled') await pause(50);
}

function quantile(values: readonly number[], share: number): number {
  const sorted = [...values].sort((a, b) => a - b);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
