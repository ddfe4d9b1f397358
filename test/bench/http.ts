/**
 * Tokens a second over HTTP on the default model: one request at a time, and 16 at once, in alternating rounds. Prompts
 * share no prefix (about 110 tokens in, 64 out), so nothing comes from the cache.
 */
import { type ClientRecord, percentiles, send } from '../../apps/engine/cli/drive.ts';
import { generator, words } from '../../apps/engine/cli/workload.ts';
import { startProduct } from '../running-product.ts';
import { benchModel } from './bench-model.ts';
import { type Figure, figure, spread } from './figure.ts';

const ROUNDS = 5;

export async function benchHttp(): Promise<readonly Figure[]> {
  const { path, label } = await benchModel();
  const product = await startProduct({ flags: ['--model', path] });
  try {
    const endpoint = { url: product.inferenceUrl, modelId: product.modelId, apiKey: null };
    const random = generator(7);
    const prompt = () => words(75, random);
    const round = async (atOnce: number, count: number) => {
      const records: ClientRecord[] = [];
      const signal = new AbortController().signal;
      let launched = 0;
      const startedAt = performance.now();
      const lane = async () => {
        while (launched < count) {
          launched += 1;
          records.push(
            await send(
              endpoint,
              { atMs: 0, prompt: prompt(), maxTokens: 64, isStreamed: true, session: `s${launched}` },
              signal,
            ),
          );
        }
      };
      await Promise.all(Array.from({ length: atOnce }, lane));
      const seconds = (performance.now() - startedAt) / 1000;
      const faults = records.filter(({ fault }) => fault !== '');
      if (faults.length > 0) throw new Error(`${faults.length} requests failed: ${faults[0]?.fault}`);
      return {
        records,
        tokensPerSecond: records.reduce((sum, record) => sum + record.completionTokenCount, 0) / seconds,
      };
    };
    await round(16, 16);
    const alone: number[] = [];
    const crowd: number[] = [];
    const ttft: number[] = [];
    const itl: number[] = [];
    for (let index = 0; index < ROUNDS; index += 1) {
      alone.push((await round(1, 3)).tokensPerSecond);
      const { records, tokensPerSecond } = await round(16, 32);
      crowd.push(tokensPerSecond);
      ttft.push(percentiles(records.flatMap((record) => record.ttftMs ?? []))?.p50 ?? Number.NaN);
      itl.push(percentiles(records.flatMap((record) => record.gapsMs))?.p50 ?? Number.NaN);
    }
    return [
      figure(`${label}, 1 request at a time`, spread(alone), 'tok/s', '', null, 1),
      figure(`${label}, 16 at once`, spread(crowd), 'tok/s', '', null, 1),
      figure(`${label}, 16 at once, TTFT p50`, spread(ttft), 'ms', '', null, 0),
      figure(`${label}, 16 at once, ITL p50`, spread(itl), 'ms', '', null, 1),
    ];
  } finally {
    await product.stop();
    product.removeData();
  }
}
