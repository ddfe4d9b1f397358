/**
 * The product over HTTP against llama-server on the same weights: 16 requests at once (about 110 tokens in, 64 out, no prefix
 * shared) and one at a time, in rounds that take turns. The peer serves with one and with two threads; its better one counts.
 */
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type Endpoint, percentiles, send } from '../../../apps/engine/cli/drive.ts';
import { generator, words } from '../../../apps/engine/cli/workload.ts';
import { startProduct } from '../../running-product.ts';
import { benchModel } from '../bench-model.ts';
import { type Figure, figure, spread } from '../figure.ts';
import { llamaCpp } from '../kernels/llama-cpp.ts';
import { ratioInterval } from '../kernels/ratio-interval.ts';

const ROUNDS = 5;
const AT_ONCE = 16;
const PRECISIONS = ['Q8_0', 'Q4_0'] as const;
/** Of 16 at once, by the issue. */
const LEAST_RATIO = 1.5;

export async function besidePeer(folder: string | null): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  if (folder === null || !path.endsWith('.gguf')) {
    console.log(
      '  SKIPPED: llama-server (name its folder with --peer-llama-cpp DIR; the default model must be there)',
    );
    return [];
  }
  const peer = llamaCpp(folder);
  const scratch = mkdtempSync(join(tmpdir(), 'variator-peer-'));
  const figures: Figure[] = [];
  try {
    for (const precision of PRECISIONS) {
      const file = join(scratch, `${precision}.gguf`);
      await peer.quantise(path, file, precision);
      figures.push(...(await comparePrecision(peer, file, `${label} ${precision}`)));
      rmSync(file);
    }
  } finally {
    rmSync(scratch, { recursive: true });
  }
  return figures;
}

async function comparePrecision(
  peer: ReturnType<typeof llamaCpp>,
  file: string,
  label: string,
): Promise<Figure[]> {
  const product = await startProduct({ flags: ['--model', file] });
  const servers = [];
  try {
    for (const threadCount of [1, 2]) servers.push(await peer.serve(file, AT_ONCE, threadCount));
    const own: Endpoint = { url: product.inferenceUrl, modelId: product.modelId, apiKey: null };
    const others = servers.map(({ url }): Endpoint => ({ url, modelId: 'peer', apiKey: null }));
    const random = generator(7);
    for (const endpoint of [own, ...others]) await load(endpoint, AT_ONCE, AT_ONCE, random);
    const rounds = { own: [] as Load[], peers: others.map(() => [] as Load[]) };
    const alone = { own: [] as number[], peers: others.map(() => [] as number[]) };
    for (let index = 0; index < ROUNDS; index += 1) {
      rounds.own.push(await load(own, AT_ONCE, 2 * AT_ONCE, random));
      for (const [at, endpoint] of others.entries()) {
        rounds.peers[at]?.push(await load(endpoint, AT_ONCE, AT_ONCE, random));
      }
      alone.own.push((await load(own, 1, 3, random)).tokensPerSecond);
      for (const [at, endpoint] of others.entries()) {
        alone.peers[at]?.push((await load(endpoint, 1, 2, random)).tokensPerSecond);
      }
    }
    const rates = (loads: readonly Load[]) => loads.map(({ tokensPerSecond }) => tokensPerSecond);
    const best = better(rounds.peers.map(rates));
    const bestAlone = better(alone.peers);
    const crowd = ratioInterval(
      rates(rounds.own).map((rate, index) => rate / (best.rates[index] ?? Number.NaN)),
    );
    const single = ratioInterval(
      alone.own.map((rate, index) => rate / (bestAlone.rates[index] ?? Number.NaN)),
    );
    const inWords = (rate: number): string => `${rate.toFixed(2)}x`;
    return [
      {
        figure: `${label}, 16 at once: tok/s over llama-server's (${best.threadCount} threads)`,
        goal: `>= ${LEAST_RATIO}`,
        measured: inWords(crowd.mean),
        interval: `${inWords(crowd.low)} to ${inWords(crowd.high)}, ${ROUNDS} rounds`,
        isMet: crowd.mean >= LEAST_RATIO,
      },
      {
        figure: `${label}, one at a time: the same (${bestAlone.threadCount} threads)`,
        goal: '',
        measured: inWords(single.mean),
        interval: `${inWords(single.low)} to ${inWords(single.high)}, ${ROUNDS} rounds`,
        isMet: null,
      },
      figure(`${label}, 16 at once: ours`, spread(rates(rounds.own)), 'tok/s', '', null, 0),
      figure(`${label}, 16 at once: llama-server`, spread(best.rates), 'tok/s', '', null, 0),
      figure(`${label}, one at a time: ours`, spread(alone.own), 'tok/s', '', null, 0),
      figure(`${label}, one at a time: llama-server`, spread(bestAlone.rates), 'tok/s', '', null, 0),
      figure(
        `${label}, 16 at once: our TTFT p50`,
        spread(rounds.own.map((one) => one.ttftMs)),
        'ms',
        '',
        null,
        0,
      ),
      figure(
        `${label}, 16 at once: llama-server's TTFT p50`,
        spread((rounds.peers[best.threadCount - 1] ?? []).map((one) => one.ttftMs)),
        'ms',
        '',
        null,
        0,
      ),
    ];
  } finally {
    for (const server of servers) server.stop();
    await product.stop();
    product.removeData();
  }
}

interface Load {
  readonly tokensPerSecond: number;
  readonly ttftMs: number;
}

/** @throws Error when a request failed */
async function load(endpoint: Endpoint, atOnce: number, count: number, random: () => number): Promise<Load> {
  const records: Awaited<ReturnType<typeof send>>[] = [];
  const { signal } = new AbortController();
  let launched = 0;
  const startedAt = performance.now();
  const lane = async () => {
    while (launched < count) {
      launched += 1;
      const request = { atMs: 0, prompt: words(75, random), maxTokens: 64, isStreamed: true };
      records.push(await send(endpoint, { ...request, session: `s${launched}` }, signal));
    }
  };
  await Promise.all(Array.from({ length: atOnce }, lane));
  const seconds = (performance.now() - startedAt) / 1000;
  const fault = records.find((record) => record.fault !== '')?.fault;
  if (fault !== undefined) throw new Error(`A request failed: ${fault}`);
  return {
    tokensPerSecond: records.reduce((sum, record) => sum + record.completionTokenCount, 0) / seconds,
    ttftMs: percentiles(records.flatMap((record) => record.ttftMs ?? []))?.p50 ?? Number.NaN,
  };
}

/** The arm with the higher median; arms stand in the order of their thread counts, from one. */
function better(arms: readonly (readonly number[])[]): { threadCount: number; rates: readonly number[] } {
  const medians = arms.map((rates) => spread(rates).median);
  const at = medians.indexOf(Math.max(...medians));
  return { threadCount: at + 1, rates: arms[at] ?? [] };
}
