/**
 * How fast what is wrong is refused: the hostile bodies of a list, one after the other and against a stream that goes on,
 * on the whole product with the model that ships. The slowest refusal is the figure; the aim is 250 ms.
 */
import { join } from 'node:path';
import { root, startProduct } from '../../running-product.ts';
import { type Figure, figure, spread } from '../figure.ts';

const ROUNDS = 5;

/** Bodies by name; each is refused. */
const hostile = (model: string): Readonly<Record<string, string>> => {
  const chat = (changes: object) =>
    JSON.stringify({ model, messages: [{ role: 'user', content: 'Hi' }], ...changes });
  const keys = (count: number) =>
    Object.fromEntries(Array.from({ length: count }, (_, index) => [`k${index}`, 1]));
  return {
    'a huge n': chat({ n: 1e9 }),
    'a huge best_of': chat({ best_of: 1e9 }),
    'a huge logprobs': chat({ top_logprobs: 1e9 }),
    'a number that is infinite': chat({}).replace('{', '{"temperature":1e999,'),
    '2 MiB of depth': `{"messages":${'['.repeat(1_000_000)}${']'.repeat(1_000_000)}}`,
    '150,000 keys': JSON.stringify(keys(150_000)),
    '9,999 keys': chat(keys(9000)),
    '2 MiB of numbers': JSON.stringify({ model, prompt: Array.from({ length: 600_000 }, () => 5) }),
    '2 MiB of text': chat({ messages: [{ role: 'user', content: 'word '.repeat(400_000) }] }),
    '2 MiB of special tokens': chat({ messages: [{ role: 'user', content: '<|im_end|>'.repeat(200_000) }] }),
    '100,000 messages': chat({ messages: Array.from({ length: 100_000 }, () => ({})) }),
    '100,000 biases': chat({
      logit_bias: Object.fromEntries(Array.from({ length: 9000 }, (_, i) => [i, 'x'])),
    }),
    'half a pair': chat({}).replace('"Hi"', '"\\ud800"'),
    'a prompt a little too long': chat({ messages: [{ role: 'user', content: 'a b '.repeat(3000) }] }),
    'more than 2 MiB': chat({ messages: [{ role: 'user', content: 'x'.repeat(2_200_000) }] }),
    'an unknown model': chat({ model: 'x'.repeat(100_000) }),
    'broken JSON of 2 MiB': chat({ user: 'x'.repeat(2_000_000) }).slice(0, -1),
  };
};

export async function benchBadInput(): Promise<readonly Figure[]> {
  const product = await startProduct({ flags: ['--model', join(root, 'models/stories-5m')] });
  try {
    const post = async (body: string): Promise<{ status: number; ms: number }> => {
      const path = body.includes('"prompt"') ? '/v1/completions' : '/v1/chat/completions';
      const startedAt = performance.now();
      const response = await fetch(`${product.inferenceUrl}${path}`, {
        method: 'POST',
        headers: { 'content-type': 'application/json' },
        body,
      });
      await response.text();
      return { status: response.status, ms: performance.now() - startedAt };
    };
    const bodies = Object.entries(hostile(product.modelId));
    const times: { name: string; ms: number }[] = [];
    for (let round = 0; round < ROUNDS; round += 1) {
      for (const [name, body] of bodies) {
        const { status, ms } = await post(body);
        if (status < 400 || status >= 500) throw new Error(`${name} got ${status}`);
        times.push({ name, ms });
      }
    }
    const slowest = times.reduce((worst, each) => (each.ms > worst.ms ? each : worst));
    const all = spread(times.map(({ ms }) => ms));
    return [
      {
        figure: `slowest refusal of ${bodies.length} hostile bodies`,
        goal: '< 250 ms',
        measured: `${slowest.ms.toFixed(0)} ms`,
        interval: `${slowest.name}, worst of ${ROUNDS} rounds`,
        isMet: slowest.ms < 250,
      },
      figure('refusals, median', all, 'ms', '', null, 1),
    ];
  } finally {
    await product.stop();
    product.removeData();
  }
}
